"""The status as a person sees it, whole screens at a time."""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import qwen_fp8_ops.report.text
from qwen_fp8_ops.outside import clock
from qwen_fp8_ops.report.text import render_ready, render_status

SCHEMA = json.loads((Path(qwen_fp8_ops.report.text.__file__).parent / "status.schema.json").read_text())
GIB = 1 << 30

GPU: dict[str, Any] = {
    "index": 0,
    "uuid": "GPU-0",
    "name": "NVIDIA H100 80GB HBM3",
    "pci_bus_id": "00000000:18:00.0",
    "compute_capability": "9.0",
    "memory_total_bytes": 80 * GIB,
    "memory_reserved_bytes": GIB // 2,
    "memory_used_bytes": 70 * GIB,
    "memory_free_bytes": 10 * GIB,
    "utilization_percent": 97,
    "temperature_celsius": 61,
    "power_watts": 512.5,
    "power_limit_watts": 700.0,
    "clocks_event_reasons": ["power-cap"],
    "ecc_uncorrected": 0,
    "remap_pending": False,
    "remap_failed": False,
    "mig_enabled": False,
    "nvlinks_up": 18,
    "nvlinks_down": 0,
    "persistence": True,
    "lost": False,
    "ours": True,
    "own_bytes": 68 * GIB,
    "foreign_bytes": 0,
    "unattributed_bytes": 2 * GIB,
    "ranks": [0],
    "parts": {"weights_bytes": 29 * GIB, "kv_cache_bytes": 36 * GIB, "graphs_bytes": GIB, "rest_bytes": 2 * GIB},
    "processes": [{"pid": 12, "memory_bytes": 68 * GIB, "ours": True, "rank": 0, "user": "ada", "command": "VLLM::Worker_TP0"}],
    "problems": [],
    "notes": ["at its power cap"],
}
STRANGER = {"pid": 4711, "memory_bytes": 5 * GIB, "ours": False, "rank": None, "user": "eve", "command": "python train.py"}
OTHER_GPU = {
    **GPU,
    "index": 1,
    "ours": False,
    "ranks": [],
    "own_bytes": 0,
    "foreign_bytes": 5 * GIB,
    "unattributed_bytes": 0,
    "memory_used_bytes": 5 * GIB,
    "utilization_percent": None,
    "parts": None,
    "processes": [STRANGER],
    "problems": ["GPU is hot"],
    "notes": [],
}
COMPARED = {"part": "weights", "planned_bytes": 28 * GIB, "bytes": 29 * GIB, "difference_percent": 3.6}
CHANGE = {"at": "2026-01-01T00:00:00.000Z", "settings": {"MAX_NUM_SEQS": {"from": "4", "to": "8"}}, "taken_back": None}
LOAD = {"phase": "weights", "done": 3, "total": 24, "fraction": 0.125, "elapsed_seconds": 40, "eta_seconds": 200}

READY: dict[str, Any] = {
    "schema": 1,
    "ok": True,
    "state": "ready",
    "profile": "h100x8",
    "model": "qwen3-vl-fp8",
    "url": "http://127.0.0.1:8010/v1",
    "since": "2031-01-01T00:00:00.000Z",
    "uptime_seconds": 7500,
    "restarts": 1,
    "load": None,
    "processes": [
        {"role": "engine", "pid": 11, "rank": None, "rss_bytes": 3 * GIB, "alive": True},
        {"role": "worker", "pid": 12, "rank": 0, "rss_bytes": 5 * GIB, "alive": True},
    ],
    "media": {"state": "ready", "url": "http://127.0.0.1:8080", "root": "/srv/media"},
    "gpus": [GPU, OTHER_GPU],
    "driver": {"source": "nvml", "version": "580.95.05", "cuda_version": "13.0"},
    "distribution": {"imbalance_percent": 0.4, "against_plan": [COMPARED]},
    "memory": {
        "weights_bytes_per_rank": 29 * GIB,
        "weights_bytes_by_rank": [29 * GIB],
        "kv_cache_bytes_per_rank": 36 * GIB,
        "kv_cache_tokens": 809_504,
        "graphs_bytes_per_rank": GIB,
        "max_concurrency": 24.7,
        "imbalance_percent": 0.2,
    },
    "engines": [{"name": "engine0", "url": "http://127.0.0.1:8010/v1", "state": "ready", "pid": 11, "load": None, "restarts": 1}],
    "engine": {
        "running": 2,
        "waiting": 1,
        "kv_cache_usage": 0.253,
        "preemptions": 0,
        "prompt_tokens_per_second": 1200.5,
        "generation_tokens_per_second": 64.0,
        "ttft_seconds_p50": 0.12,
        "itl_seconds_p50": 0.016,
    },
    "slurm": {"job_id": "4711", "partition": "gpu", "node": "node07", "gpus": 8, "ends_at": "2031-01-01T00:00:00.000Z", "seconds_left": 7500},
    "change": None,
    "problems": [],
    "error": None,
}

READY_SCREEN = """\
qwen3-vl-fp8 READY for 1 h 2 min (profile h100x8) - 1 restart
  API       http://127.0.0.1:8010/v1   engine0: ready, pid 11
  media     http://127.0.0.1:8080   ready, serves /srv/media
  requests  2 running, 1 waiting; KV cache 25.3% used; 1200.5 prompt + 64 new tokens/s; TTFT 120 ms, ITL 16 ms
  memory    per rank: weights 29.00 GiB, KV cache 36.00 GiB; 809,504 tokens = 24.7 requests of full length
  processes 2, 8.00 GiB of host memory
  SLURM     job 4711 on node07, 2 h 5 min left
  2 x NVIDIA H100 80GB HBM3, driver 580.95.05, CUDA up to 13.0
  GPU 0  [████████████████▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▒?······]  70.0 of 80.0 GiB rank 0  97 %  61 °C 512 W
  not ours to use:
  GPU 1 ![◆◆◆··········································]   5.0 of 80.0 GiB               61 °C 512 W
          █ weights  ▓ KV cache  ▒ graphs, rest  ◆ others  ? unattributed  · free
  GPU 0: 2.00 GiB held by no process that can be seen from here
  GPU 1: pid 4711 (eve) holds 5.00 GiB: python train.py
  GPU 0: at its power cap
  rank 0 holds 68.00 GiB: weights 29.00, KV cache 36.00, graphs 1.00, rest 2.00
  the fullest rank holds 0.4 % more than the emptiest
  against the plan: weights 29.00 for 28.00 (+3.6 %)"""

NOTHING: dict[str, Any] = {
    **READY,
    **dict.fromkeys(("profile", "model", "url", "since", "uptime_seconds", "load", "media", "driver", "distribution", "memory", "engine", "slurm", "error")),
    "ok": False,
    "state": "stopped",
    "restarts": 0,
    "processes": [],
    "gpus": [],
    "engines": [],
    "problems": [],
}
NO_GPUS = {"code": "no-gpus", "message": "no NVIDIA driver answers: NVML Shared Library Not Found", "fix": "Expected on a machine without NVIDIA GPUs."}

SCREENS = {
    "ready": (READY, READY_SCREEN),
    "stopped": (NOTHING, "qwen-fp8 STOPPED"),
    "stopped, no GPUs": ({**NOTHING, "problems": [NO_GPUS]}, "qwen-fp8 STOPPED\n  GPUs      none: no NVIDIA driver answers: NVML Shared Library Not Found"),
    "starting": (
        {
            **NOTHING,
            "state": "starting",
            "model": "qwen3-vl-fp8",
            "since": READY["since"],
            "load": LOAD,
            "engines": [{**READY["engines"][0], "state": "starting", "load": LOAD, "pid": None}],
            "media": READY["media"],
        },
        "qwen3-vl-fp8 STARTING for 1 h 2 min\n"
        "  loading   loading weights 3/24, 40 s, about 3 min 20 s left\n"
        "  API       http://127.0.0.1:8010/v1   engine0: starting\n"
        "  media     http://127.0.0.1:8080   ready, serves /srv/media",
    ),
    "failed": (
        {**NOTHING, "state": "failed", "model": "qwen3-vl-fp8", "error": {"code": "engine-failed", "message": "The engine does not run", "fix": "one\ntwo"}},
        "qwen3-vl-fp8 FAILED\n  !         The engine does not run\n              one\n              two",
    ),
    "degraded": (
        {**NOTHING, "ok": True, "state": "degraded", "restarts": 2, "problems": [{"code": "media-failing", "message": "media: down", "fix": ""}]},
        "qwen-fp8 DEGRADED - 2 restarts\n  !         media: down",
    ),
}


@pytest.fixture(autouse=True)
def a_fixed_moment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(clock, "seconds_since", lambda stamp: 3723.0)
        yield


@pytest.mark.parametrize("name", SCREENS)
def test_a_screen(name: str) -> None:
    status, screen = SCREENS[name]
    jsonschema.validate(status, SCHEMA)
    assert render_status(status) == screen


@pytest.mark.parametrize("name", SCREENS)
def test_the_first_columns_fit_a_small_terminal(name: str) -> None:
    """What a line is about stands in its first 80 columns."""
    first, *rows = render_status(SCREENS[name][0]).splitlines()
    assert len(first) <= 80
    assert all(row.startswith("  ") for row in rows)


def nullable(schema: dict[str, Any], value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of ``value`` that the schema allows to be null."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    if "null" in schema.get("type", ()) or "oneOf" in schema:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from nullable(schema.get("properties", {}).get(key, {}), inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from nullable(schema["items"], inner, (*path, index))


WHOLE = {**READY, "load": LOAD, "change": CHANGE, "error": {"code": "x", "message": "y", "fix": "z"}}


@pytest.mark.parametrize("path", [*nullable(SCHEMA, WHOLE)], ids=lambda path: ".".join(map(str, path)))
def test_what_may_be_unknown_is_no_crash(path: tuple[Any, ...]) -> None:
    status = copy.deepcopy(WHOLE)
    inside: Any = status
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = None
    jsonschema.validate(status, SCHEMA)
    assert "None" not in render_status(status)


def test_the_schema_was_walked() -> None:
    assert len([*nullable(SCHEMA, WHOLE)]) > 30


@pytest.mark.parametrize("needs_key", [False, True])
def test_ready_gives_a_line_that_can_be_pasted(needs_key: bool) -> None:
    text = render_ready({**READY, "needs_key": needs_key}, 27.4)
    assert text.startswith("READY after 27 s\n  API    http://127.0.0.1:8010/v1   (model qwen3-vl-fp8)\n  media  http://127.0.0.1:8080   serves /srv/media\n")
    words = shlex.split(text[text.index("curl") : text.index("'\n  ") + 1].replace("\\\n", " "))
    assert words[:4] == ["curl", "http://127.0.0.1:8010/v1/chat/completions", "-H", "Content-Type: application/json"]
    assert ("Authorization: Bearer KEY" in words) is needs_key
    assert json.loads(words[-1])["model"] == "qwen3-vl-fp8"
