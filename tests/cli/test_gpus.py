"""`qwen-fp8 gpus` as a shell sees it, and `status` where it shows GPUs: over the stand-in driver, with real processes."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import qwen_fp8_ops.report.status
from qwen_fp8_ops.outside import process
from tests.fake_nvml.fake import REPOSITORY, FakeDriver, engine_on

SCHEMA = json.loads((Path(qwen_fp8_ops.report.status.__file__).parent / "status.schema.json").read_text())
GIB = 1 << 30
MIB = 1 << 20
LOGGED = {
    "weights_bytes_per_rank": 29 * GIB,
    "weights_bytes_by_rank": [28 * GIB, 29 * GIB],
    "kv_cache_bytes_per_rank": 36 * GIB,
    "kv_cache_tokens": 809_504,
    "graphs_bytes_per_rank": GIB,
    "max_concurrency": 24.7,
    "imbalance_percent": 3.57,
}
PLANNED = {"weights_bytes_per_rank": 29 * GIB, "kv_cache_bytes_per_rank": 36 * GIB, "overhead_bytes_per_rank": 4 * GIB}


class Here:
    """A run's folder before the stand-in driver."""

    def __init__(self, driver: FakeDriver, home: Path) -> None:
        self.driver, self.home = driver, home

    def run(self, gpus: str, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return self.driver.run(gpus, *words, QWEN_FP8_HOME=str(self.home), **environ)

    def json(self, gpus: str, *, code: int, verb: str = "gpus", **environ: str) -> dict[str, Any]:
        done = self.run(gpus, verb, "--json", **environ)
        assert (done.returncode, done.stderr) == (code, "")
        value: dict[str, Any] = json.loads(done.stdout)
        shape = {**SCHEMA, "required": ["schema", "ok", "gpus", "driver", "distribution", "problems", "error"]}
        jsonschema.validate(value, SCHEMA if verb == "status" else shape)
        return value

    @contextmanager
    def engine(self, *titles: str, **state: Any) -> Iterator[list[int]]:
        """A service that a living supervisor recorded: an engine whose workers bear these titles. Gives their pids."""
        program = (
            "import subprocess, sys\n"
            "workers = [subprocess.Popen([title, '600'], executable='/bin/sleep') for title in sys.argv[1:]]\n"
            "print(*(worker.pid for worker in workers), flush=True)\nsys.stdin.read()\nfor worker in workers: worker.kill()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, *titles], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as leader:
            assert leader.stdin
            assert leader.stdout
            pids = [int(word) for word in leader.stdout.readline().split()]
            engine, me = process.identify(leader.pid), process.identify(os.getpid())
            assert engine
            assert me
            about = {"name": "engine0", "role": "engine", "state": "ready", "identity": engine.as_json(), "url": "u", "log": "l", "problem": ""}
            (self.home / "run").mkdir(exist_ok=True)
            recorded = {"schema": 1, "state": "ready", "since": "2031-01-01T00:00:00Z", "supervisor": me.as_json(), "programs": [about], **state}
            (self.home / "run" / "state.json").write_text(json.dumps(recorded))
            try:
                yield pids
            finally:
                leader.stdin.close()


@pytest.fixture
def here(fake_driver: FakeDriver, tmp_path: Path) -> Here:
    return Here(fake_driver, tmp_path)


def test_eight_healthy_gpus_without_a_service(here: Here) -> None:
    found = here.json("count=8", code=0)
    assert (found["ok"], len(found["gpus"]), found["problems"], found["error"], found["distribution"]) == (True, 8, [], None, None)
    assert found["driver"] == {"source": "nvml", "version": "580.95.05", "cuda_version": "13.0"}
    text = here.run("count=8", "gpus", COLUMNS="80").stdout.splitlines()
    assert text[0] == "8 x NVIDIA H100 80GB HBM3, driver 580.95.05, CUDA up to 13.0"
    assert [line[:7] for line in text[1:9]] == [f"GPU {index}  " for index in range(8)]
    assert max(map(len, text)) <= 80


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("lost=3", "gpu-lost", "GPU 3: GPU is lost"),
        ("ecc=2:4", "gpu-ecc", "GPU 2: 4 uncorrected ECC errors since the driver was loaded"),
        ("remap=1:pending", "gpu-remap-pending", "GPU 1: a bad memory row waits for a reset to be remapped"),
        ("remap=1:failed", "gpu-remap-failed", "GPU 1: a bad memory row cannot be remapped any more"),
        ("events=7:0x48", "gpu-slowdown", "GPU 7: slowed down by its hardware: hardware slowdown, too hot"),
    ],
)
def test_a_gpu_with_a_problem_is_exit_code_1_with_the_remedy(here: Here, words: str, code: str, message: str) -> None:
    found = here.json(f"count=8 {words}", code=1)
    (problem,) = found["problems"]
    assert (found["ok"], found["error"], problem["code"], problem["message"], bool(problem["fix"])) == (False, None, code, message, True)
    done = here.run(f"count=8 {words}", "gpus")
    assert (done.returncode, f"!         {message}" in done.stdout.splitlines()) == (1, True)


@pytest.mark.parametrize("words", ["events=0x4", "events=0x20", "down=5:3", "mig=2:1", "no=Power no=Ecc no=Temperature"])
def test_what_is_no_fault_is_exit_code_0(here: Here, words: str) -> None:
    assert here.json(f"count=8 {words}", code=0)["problems"] == []


def test_somebody_elses_gpu_is_shown_apart_and_not_our_problem(here: Here) -> None:
    found = here.json("count=8 ecc=7:1", code=0, CUDA_VISIBLE_DEVICES="0,1,GPU-000000a2,3")
    assert [gpu["ours"] for gpu in found["gpus"]] == [True] * 4 + [False] * 4
    assert found["gpus"][7]["problems"] == ["1 uncorrected ECC error since the driver was loaded"]
    text = here.run("count=8 ecc=7:1", "gpus", SLURM_JOB_GPUS="4,5").stdout.splitlines()
    assert [line.split()[1] for line in text[1:3]] == ["4", "5"]
    assert text[3] == "not ours to use:"


@pytest.mark.parametrize(
    ("words", "code"), [("init=9", "driver-not-loaded"), ("init=18", "driver-mismatch"), ("init=12", "no-gpus"), ("list=999", "nvml-failed")]
)
def test_without_a_driver_there_is_valid_json_and_exit_code_3(here: Here, words: str, code: str) -> None:
    if Path("/proc/driver/nvidia/version").exists() and code == "no-gpus":
        pytest.skip("this machine has a driver")
    found = here.json(words, code=3)
    assert (found["ok"], found["gpus"], found["driver"], found["error"]["code"], bool(found["error"]["fix"])) == (False, [], None, code, True)
    done = here.run(words, "gpus")
    assert (done.returncode, done.stdout.splitlines()[0]) == (3, f"!         {found['error']['message']}")
    status = here.json(words, code=3, verb="status")
    assert (status["gpus"], status["driver"], status["problems"]) == ([], None, [found["error"]])


@pytest.mark.parametrize(("words", "code"), [("driver=570.86.15 cuda=12080", 1), ("driver=580.65.06 cuda=13000", 0)])
def test_a_driver_too_old_for_the_installed_torch_is_told_with_the_remedy(here: Here, tmp_path: Path, words: str, code: int) -> None:
    torch = tmp_path / "packages" / "torch"
    torch.mkdir(parents=True)
    (torch / "__init__.py").write_text("raise SystemExit('a status must not import torch')\n")
    (torch / "version.py").write_text("from typing import Optional\n\n__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\n")
    found = here.json(f"count=1 {words}", code=code, PYTHONPATH=f"{torch.parent}{os.pathsep}{REPOSITORY}")
    assert [problem["code"] for problem in found["problems"]] == ["driver-cuda"] * code
    if code:
        assert found["problems"][0]["message"] == "The installed torch is built for CUDA 13.0, which needs driver 580 or newer; this is driver 570.86.15"


def test_nvidia_smi_answers_where_nvml_does_not(here: Here, tmp_path: Path) -> None:
    script = tmp_path / "bin" / "nvidia-smi"
    script.parent.mkdir()
    row = "0, GPU-1, NVIDIA H100 80GB HBM3, 00000000:18:00.0, 9.0, 81559, 479, 5000, 76080, 0, 30, 70, 700, 0x1, 0, Disabled, Enabled, 580.95.05"
    script.write_text(f'#!/bin/sh\ncase $1 in --query-gpu=*) echo "{row}" ;; --query-compute-apps=*) echo "GPU-1, 1, 5000" ;; esac\n')
    script.chmod(0o755)
    found = here.json("init=12", code=0, PATH=f"{script.parent}:{os.environ['PATH']}")
    assert found["driver"] == {"source": "nvidia-smi", "version": "580.95.05", "cuda_version": None}
    assert [(gpu["memory_used_bytes"], gpu["foreign_bytes"], gpu["unattributed_bytes"]) for gpu in found["gpus"]] == [(5000 * MIB, 5000 * MIB, 0)]


def test_memory_follows_the_processes_of_a_running_service(here: Here) -> None:
    with here.engine("VLLM::Worker_TP0_EP0", "VLLM::Worker_TP1_EP1", "VLLM::EngineCore", memory=LOGGED, planned=PLANNED) as (first, second, core):
        words = f"count=3 {engine_on([first, second], 70 * 1024)} proc=0:{core}:300 proc=1:1:500 used=2:5000 proc=2:4194304:4000"
        found = here.json(words, code=0)
        status = here.json(words, code=0, verb="status")
        text = here.run(words, "gpus", COLUMNS="80").stdout
    assert status["gpus"] == found["gpus"]
    assert status["distribution"] == found["distribution"]
    zero, one, two = found["gpus"]
    assert [(gpu["ranks"], gpu["own_bytes"] // MIB, gpu["foreign_bytes"] // MIB, gpu["unattributed_bytes"] // MIB) for gpu in (zero, one, two)] == [
        ([0], 71_980, 0, 0),
        ([1], 71_680, 500, 0),
        ([], 0, 4000, 1000),
    ]
    assert zero["parts"] == {"weights_bytes": 28 * GIB, "kv_cache_bytes": 36 * GIB, "graphs_bytes": GIB, "rest_bytes": 5 * GIB + 300 * MIB}
    assert one["parts"] == {"weights_bytes": 29 * GIB, "kv_cache_bytes": 36 * GIB, "graphs_bytes": GIB, "rest_bytes": 4 * GIB}
    assert [(entry["pid"], entry["ours"], entry["rank"], entry["command"]) for entry in zero["processes"]] == [
        (first, True, 0, "VLLM::Worker_TP0_EP0 600"),
        (core, True, None, "VLLM::EngineCore 600"),
    ]
    assert (two["processes"][0]["user"], two["processes"][0]["command"]) == (None, None)  # a pid that this namespace does not have
    distribution = found["distribution"]
    assert distribution["imbalance_percent"] == round((71_980 / 71_680 - 1) * 100, 2)
    assert [(part["part"], part["difference_percent"]) for part in distribution["against_plan"]] == [("weights", 0.0), ("KV cache", 0.0), ("overhead", 57.3)]
    assert "GPU 2: pid 4194304 (?) holds 3.91 GiB: no such pid is in this namespace" in text
    assert "against the plan: weights 29.00 for 29.00 (+0.0 %)" in text


def test_a_damaged_record_costs_the_ranks_and_not_the_gpus(here: Here) -> None:
    (here.home / "run").mkdir()
    (here.home / "run" / "state.json").write_text('{"state": "ready", "programs": [{"identity": 3}], "memory": "x", "supervisor": {}}')
    found = here.json("count=2", code=0)
    assert (len(found["gpus"]), [problem["code"] for problem in found["problems"]]) == (2, ["damaged-file"])


# --- status: Prometheus, and again and again --------------------------------------------------------------------------------


def test_status_gives_prometheus_text(here: Here) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    done = here.run("count=2 used=0:5000", "status", "--prometheus")
    assert (done.returncode, done.stderr) == (0, "")
    found = {family.name: family.samples for family in text_string_to_metric_families(done.stdout)}
    assert [sample.value for sample in found["qwen_fp8_gpu_memory_used_bytes"]] == [5000.0 * MIB, 0.0]


@pytest.mark.parametrize("words", [("--prometheus", "--json"), ("--watch", "--json"), ("--watch", "--prometheus")])
def test_two_ways_to_show_a_status_are_refused(here: Here, words: tuple[str, str]) -> None:
    done = here.run("count=1", "status", *words)
    assert done.returncode == 2
    assert "choose one" in done.stdout + done.stderr


def read_until(screen: int, wanted: bytes) -> bytes:
    seen, deadline = b"", time.monotonic() + 120
    while wanted not in seen:
        ready, _, _ = select.select([screen], [], [], 1.0)
        seen += os.read(screen, 65536) if ready else b""
        assert time.monotonic() < deadline, seen
    return seen


def test_watch_draws_again_what_has_changed_and_ends_cleanly(here: Here) -> None:
    screen, terminal = pty.openpty()
    here.driver.show("count=2 used=0:10240")
    command = [sys.executable, "-m", "qwen_fp8_ops", "status", "--watch"]
    environ = here.driver.whole_environ(QWEN_FP8_HOME=str(here.home), COLUMNS="80", LINES="24")
    with subprocess.Popen(command, env=environ, stdout=terminal, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as watching:
        os.close(terminal)
        first = read_until(screen, b" 10.0 of ")
        here.driver.show("count=2 used=0:20480")
        second = read_until(screen, b" 20.0 of ")
        watching.send_signal(signal.SIGINT)
        _, stderr = watching.communicate(timeout=60)
    os.close(screen)
    assert (watching.returncode, stderr) == (0, b"")
    assert first.startswith(b"\x1b[H")
    assert second.count(b"\x1b[J") >= 1
    assert b"\x1b[2J" not in first + second  # clearing the whole screen each time would flicker


def test_watch_into_a_file_is_plain_text(here: Here) -> None:
    here.driver.show("count=1")
    command = [sys.executable, "-m", "qwen_fp8_ops", "status", "--watch"]
    with subprocess.Popen(command, env=here.driver.whole_environ(QWEN_FP8_HOME=str(here.home)), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watching:
        assert watching.stdout
        lines = [watching.stdout.readline() for _ in range(2)]
        watching.send_signal(signal.SIGINT)
        _, stderr = watching.communicate(timeout=60)
    assert (watching.returncode, stderr) == (0, b"")
    assert b"".join(lines).startswith(b"qwen-fp8 STOPPED\n  1 x NVIDIA H100")
