"""Every command line we can make, read by the installed vLLM's own parser: a flag that it renames fails here.

One child process for all of it: importing vLLM takes many seconds, parsing takes milliseconds.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.config.kinds import Choice, Switch
from qwen_fp8_ops.config.load import load, profile_names
from qwen_fp8_ops.config.settings import OPTIONS, Settings
from qwen_fp8_ops.engine.command import engine_command, uses_expert_parallel, weight_cache_command
from qwen_fp8_ops.engine.flags import OWNERS, refuse_clashes
from qwen_fp8_ops.engine.weight_cache import without_server_flags
from qwen_fp8_ops.errors import ConfigError

PROGRAM = """
import json, sys
from importlib import import_module
from qwen_fp8_ops.engine import cpu_launcher

parsed = []
for argv in json.load(sys.stdin):
    try:
        parsed.append(vars(cpu_launcher.parse(argv)))
    except (SystemExit, TypeError, ValueError) as error:
        parsed.append({"refused": repr(error)})
root = import_module("vllm.utils.argparse_utils").FlexibleArgumentParser(prog="vllm")
serve = import_module("vllm.entrypoints.cli.serve").ServeSubcommand().subparser_init(root.add_subparsers(dest="subparser"))
aliases = [list(action.option_strings) for action in serve._actions if action.option_strings]
preload = import_module("vllm.entrypoints.cli.preload").PreloadSubcommand().subparser_init(root._subparsers._group_actions[0])
cached = []
for argv in json.loads(sys.argv[1]):
    try:
        cached.append(vars(root.parse_args(argv)))
    except SystemExit as error:
        cached.append({"refused": repr(error)})
known = [name for action in preload._actions for name in action.option_strings]
print(json.dumps({"parsed": parsed, "aliases": aliases, "cached": cached, "known to preload": known}, default=str))
"""

MORE_VALUES: dict[str, tuple[str, ...]] = {
    "HOST": ("0.0.0.0", "::1", "localhost"),
    "PORT": ("1024", "65535"),
    "MAX_IMAGES": ("0", "1024"),
    "MAX_VIDEOS": ("0",),
    "DRAIN_TIMEOUT": ("0", "3600"),
    "TEMPERATURE": ("0", "2"),
    "TOP_P": ("1", "0.01"),
    "TOP_K": ("0",),
    "GPU_MEMORY_UTIL": ("0.98",),
    "REASONING_PARSER": ("", "deepseek_r1"),
    "TOOL_CALL_PARSER": ("", "qwen3_xml"),
    "ALLOWED_MEDIA_DOMAINS": ("*", "images.example.org, cdn.example.org"),
    "SERVED_MODEL_NAME": ("Qwen/Qwen3-VL-235B-A22B-Thinking-FP8",),
    "VLLM_EXTRA_ARGS": ("--max-logprobs 5 --seed=3 --no-async-scheduling",),
}


def cases() -> Iterator[tuple[str, ...]]:
    """Words for ``load``: profiles (bare) and settings (KEY=value)."""
    names = profile_names()
    yield from ((name,) for name in names)
    yield from itertools.permutations(names, 2)
    yield tuple(names)
    for profile, (key, row) in itertools.product(("h100x8", "demo"), OPTIONS.items()):
        words = row.kind.words if isinstance(row.kind, Choice) else ("on", "off") if isinstance(row.kind, Switch) else MORE_VALUES.get(key, ())
        yield from ((profile, f"{key}={word}") for word in words)


CASES = tuple(cases())
SOCKETS = Path("/tmp/qfp8-1a2b3c4d")
CACHED = (
    ("h100x8",),
    ("h100x4",),
    ("h100x8", "MAX_IMAGES=0", "MAX_VIDEOS=0", "LOAD_STRATEGY=multithread", "DTYPE=auto"),
    ("h100x8", "LOAD_STRATEGY=instanttensor", "KV_CACHE_DTYPE=fp8", "VLLM_EXTRA_ARGS=--root-path /v --seed -3 --no-enable-log-outputs --max-logprobs 5"),
)


def settings_of(case: tuple[str, ...]) -> Settings:
    return load(profiles=[word for word in case if "=" not in word], overrides=[word for word in case if "=" in word]).settings


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    if find_spec("vllm") is None:
        pytest.skip("needs vLLM: the cpu or gpu extra")
    argvs = []
    for case in CASES:
        settings = settings_of(case)
        sockets = SOCKETS if settings.weight_cache else None
        argv = engine_command(settings, python="python", model=Path("/models/qwen"), gate_file=Path("/gate.json"), port=settings.port, sockets=sockets).argv
        argvs.append(argv[argv.index("serve") :])
    cached = [weight_cache_command(settings_of(case), python="python", model=Path("/models/qwen"), sockets=SOCKETS).argv[4:] for case in CACHED]
    done = subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(cached)], input=json.dumps(argvs), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    found["cached by case"] = dict(zip(CACHED, found["cached"], strict=True))
    found["by case"] = dict(zip(CASES, found["parsed"], strict=True))
    return found


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_the_engine_understands_what_we_mean(answers: dict[str, Any], case: tuple[str, ...]) -> None:
    settings, parsed = settings_of(case), answers["by case"][case]
    expert_parallel = uses_expert_parallel(settings)
    expected = {
        "model_tag": "/models/qwen",
        "host": settings.host,
        "port": settings.port,
        "served_model_name": [settings.served_model_name],
        "dtype": settings.dtype,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "enable_expert_parallel": expert_parallel,
        "enable_ep_weight_filter": expert_parallel,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "max_num_batched_tokens": settings.max_num_batched_tokens,
        "kv_cache_dtype": settings.kv_cache_dtype,
        "mm_encoder_tp_mode": settings.mm_encoder_tp_mode,
        "limit_mm_per_prompt": {"image": settings.max_images, "video": settings.max_videos},
        "override_generation_config": {"temperature": settings.temperature, "top_p": settings.top_p, "top_k": settings.top_k},
        "shutdown_timeout": settings.drain_timeout,
        "middleware": ["qwen_fp8_ops.gate.Gate"],
        "disable_fastapi_docs": True,
        "disable_uvicorn_access_log": True,
        "async_scheduling": "--no-async-scheduling" not in settings.vllm_extra_args,
        "enforce_eager": settings.enforce_eager,
        "reasoning_parser": settings.reasoning_parser,
        "enable_auto_tool_choice": bool(settings.tool_call_parser),
        "tool_call_parser": settings.tool_call_parser or None,
        "allowed_media_domains": None,  # the gate's media connector knows them
        "api_key": None,
        "hf_token": None,
    }
    if not settings.on_cpu:
        expected["gpu_memory_utilization"] = settings.gpu_memory_util
    by_vllm = settings.load_strategy in ("lazy", "eager", "prefetch")
    expected["safetensors_load_strategy"] = settings.load_strategy if by_vllm else None
    expected["load_format"] = "ipc_cache" if settings.weight_cache else "instanttensor" if settings.load_strategy == "instanttensor" else "auto"
    mapped = {"socket_dir": str(SOCKETS), "fallback": False}
    expected["model_loader_extra_config"] = mapped if settings.weight_cache else {"enable_multithread_load": True, "num_threads": 8} if settings.load_strategy == "multithread" else {}
    assert {key: parsed.get(key, parsed.get("refused", "?")) for key in expected} == expected


@pytest.mark.parametrize("case", CACHED, ids=" ".join)
def test_the_weight_cache_understands_what_we_mean(answers: dict[str, Any], case: tuple[str, ...]) -> None:
    settings, parsed = settings_of(case), answers["cached by case"][case]
    expected = {
        "model": "/models/qwen",
        "weight_cache_socket_dir": str(SOCKETS),
        "dtype": settings.dtype,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "enable_expert_parallel": uses_expert_parallel(settings),
        "enable_ep_weight_filter": uses_expert_parallel(settings),
        "kv_cache_dtype": settings.kv_cache_dtype,
        "mm_encoder_tp_mode": settings.mm_encoder_tp_mode,
        "limit_mm_per_prompt": {"image": min(1, settings.max_images), "video": min(1, settings.max_videos)},
        "enforce_eager": True,
        "enable_flashinfer_autotune": False,
        "load_format": "instanttensor" if settings.load_strategy == "instanttensor" else "auto",
        "model_loader_extra_config": {"enable_multithread_load": True, "num_threads": 8} if settings.load_strategy == "multithread" else {},
        "weight_cache_health_port": None,
    }
    assert {key: parsed.get(key, parsed.get("refused", "?")) for key in expected} == expected


def test_what_the_weight_cache_does_not_know_is_kept_from_it(answers: dict[str, Any]) -> None:
    parsed = answers["cached by case"][CACHED[-1]]
    assert (parsed["seed"], parsed["max_logprobs"]) == (-3, 5)
    of_server = {name for names in answers["aliases"] for name in names} - set(answers["known to preload"])
    assert {name for name in of_server if not without_server_flags([name])} == of_server
    assert {name for name in answers["known to preload"] if not without_server_flags([name])} == set()


def test_the_default_profile_has_all_that_the_job_asks_for(answers: dict[str, Any]) -> None:
    parsed = answers["by case"][("h100x8",)]
    assert (parsed["tensor_parallel_size"], parsed["enable_expert_parallel"], parsed["enable_ep_weight_filter"]) == (8, True, True)
    assert (parsed["mm_encoder_tp_mode"], parsed["async_scheduling"]) == ("data", True)
    assert (parsed["max_model_len"], parsed["gpu_memory_utilization"], parsed["max_num_seqs"]) == (32768, 0.9, 4)
    assert parsed["max_num_batched_tokens"] < 16384
    assert (parsed["reasoning_parser"], parsed["tool_call_parser"], parsed["enable_auto_tool_choice"]) == ("qwen3", "hermes", True)
    assert parsed["served_model_name"] == ["qwen3-vl-fp8"]
    assert parsed["shutdown_timeout"] == 120


def test_extra_arguments_arrive(answers: dict[str, Any]) -> None:
    parsed = answers["by case"][("h100x8", "VLLM_EXTRA_ARGS=--max-logprobs 5 --seed=3 --no-async-scheduling")]
    assert (parsed["max_logprobs"], parsed["seed"]) == (5, 3)


def test_a_second_name_of_an_owned_flag_is_owned_too(answers: dict[str, Any]) -> None:
    shared = [names for names in answers["aliases"] if set(names) & set(OWNERS)]
    assert len(shared) > 20
    assert {name for names in shared for name in names} <= set(OWNERS)


def test_every_owned_flag_is_one_of_the_engines(answers: dict[str, Any]) -> None:
    assert set(OWNERS) <= {name for names in answers["aliases"] for name in names}


def test_every_other_flag_of_the_engine_may_be_given(answers: dict[str, Any]) -> None:
    others = {name for names in answers["aliases"] for name in names} - set(OWNERS)
    refused = set()
    for name in others:
        try:
            refuse_clashes([name])
        except ConfigError:
            refused.add(name)
    assert len(others) > 100
    assert refused == {"--hf-token"}
