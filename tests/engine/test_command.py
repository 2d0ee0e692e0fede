"""The engine's command line, profile by profile, as a person would read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qwen_fp8_ops.config.load import load, profile_names
from qwen_fp8_ops.engine.command import NOT_INHERITED, EngineCommand, engine_command, uses_expert_parallel
from qwen_fp8_ops.errors import ConfigError
from qwen_fp8_ops.gate import CONNECTOR

H100X8 = """
python -P -m qwen_fp8_ops.engine.gpu_launcher serve /models/qwen
--host=127.0.0.1
--port=8010
--served-model-name=qwen3-vl-fp8
--dtype=bfloat16
--tensor-parallel-size=8
--max-model-len=32768
--max-num-seqs=4
--max-num-batched-tokens=8192
--kv-cache-dtype=auto
--mm-encoder-tp-mode=data
--async-scheduling
--limit-mm-per-prompt={"image": 16, "video": 2}
--override-generation-config={"temperature": 0.7, "top_p": 0.95, "top_k": 20}
--shutdown-timeout=120
--middleware=qwen_fp8_ops.gate.Gate
--disable-fastapi-docs
--disable-uvicorn-access-log
--gpu-memory-utilization=0.9
--enable-expert-parallel
--enable-ep-weight-filter
--reasoning-parser=qwen3
--enable-auto-tool-choice
--tool-call-parser=hermes
"""

GPU_ENVIRONMENT = {
    "QWEN_FP8_GATE": "/srv/run/gate.json",
    "VLLM_LOGGING_LEVEL": "INFO",
    "VLLM_MEDIA_CONNECTOR": "qwen-fp8-ops",
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENGINE_READY_TIMEOUT_S": "3600",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}

CHANGES: dict[tuple[str, ...], dict[str, str]] = {
    ("h100x4",): {
        "--tensor-parallel-size=8": "--tensor-parallel-size=4",
        '--limit-mm-per-prompt={"image": 16, "video": 2}': '--limit-mm-per-prompt={"image": 16, "video": 0}',
        "--gpu-memory-utilization=0.9": "--gpu-memory-utilization=0.95",
        "--enable-expert-parallel\n": "",
        "--enable-ep-weight-filter\n": "",
    },
    ("demo",): {
        "qwen_fp8_ops.engine.gpu_launcher": "qwen_fp8_ops.engine.cpu_launcher",
        "--tensor-parallel-size=8": "--tensor-parallel-size=1",
        "--max-model-len=32768": "--max-model-len=4096",
        "--max-num-batched-tokens=8192": "--max-num-batched-tokens=4096",
        "--mm-encoder-tp-mode=data": "--mm-encoder-tp-mode=weights",
        "--shutdown-timeout=120": "--shutdown-timeout=30",
        "--gpu-memory-utilization=0.9\n": "",
        "--enable-expert-parallel\n--enable-ep-weight-filter\n": "--enforce-eager\n",
    },
    ("throughput",): {"--gpu-memory-utilization=0.9": "--gpu-memory-utilization=0.95", "--max-num-seqs=4": "--max-num-seqs=8"},
    ("long-context",): {"--max-model-len=32768": "--max-model-len=65536", "--max-num-seqs=4": "--max-num-seqs=2"},
    ("fast",): {'"temperature": 0.7': '"temperature": 0.3'},
    ("creative",): {'"temperature": 0.7': '"temperature": 1.0', '"top_k": 20': '"top_k": 50'},
    ("throughput", "long-context", "fast", "creative"): {
        "--gpu-memory-utilization=0.9": "--gpu-memory-utilization=0.95",
        "--max-model-len=32768": "--max-model-len=65536",
        "--max-num-seqs=4": "--max-num-seqs=2",
        '"temperature": 0.7': '"temperature": 1.0',
        '"top_k": 20': '"top_k": 50',
    },
}


def command(*profiles: str, **settings: object) -> EngineCommand:
    resolved = load(profiles=profiles, overrides=[f"{key}={value}" for key, value in settings.items()]).settings
    return engine_command(resolved, python="python", model=Path("/models/qwen"), gate_file=Path("/srv/run/gate.json"), port=resolved.port)


def as_text(argv: tuple[str, ...]) -> str:
    """A flag a line; what stands before the first, and the values of one, on its line."""
    text = ""
    for word in argv:
        text += ("\n" if word.startswith("--") else " ") + word
    return text.strip()


def test_the_default_profile_word_for_word() -> None:
    made = command("h100x8")
    assert as_text(made.argv) == H100X8.strip()
    assert made.env == GPU_ENVIRONMENT
    assert command().argv == made.argv


@pytest.mark.parametrize("profiles", CHANGES, ids="+".join)
def test_each_profile_changes_what_it_says_and_nothing_else(profiles: tuple[str, ...]) -> None:
    expected = H100X8
    for old, new in CHANGES[profiles].items():
        assert old in expected
        expected = expected.replace(old, new)
    assert as_text(command(*profiles).argv) == expected.strip()


def test_json_logs_have_the_engine_name_its_requests_and_never_their_prompts() -> None:
    added = "--disable-uvicorn-access-log\n--enable-log-requests\n--max-log-len=0"
    assert as_text(command(LOG_FORMAT="json").argv) == H100X8.replace("--disable-uvicorn-access-log", added).strip()


def test_every_profile_is_looked_at() -> None:
    assert set(profile_names()) == {name for names in CHANGES for name in names} | {"h100x8"}


def test_the_environment_of_an_engine_on_the_cpu() -> None:
    expected = {key: value for key, value in GPU_ENVIRONMENT.items() if key != "OMP_NUM_THREADS"}
    expected |= {"VLLM_ENGINE_READY_TIMEOUT_S": "600", "VLLM_CPU_KVCACHE_SPACE": "3", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    assert command("demo", CPU_KV_CACHE_GIB=3).env == expected


@pytest.mark.parametrize(
    ("asked", "ranks", "expected"),
    [("auto", 1, False), ("auto", 2, False), ("auto", 4, False), ("auto", 8, True), ("auto", 16, True), ("on", 4, True), ("off", 8, False)],
)
def test_whole_experts_where_their_slices_are_no_whole_fp8_blocks(asked: str, ranks: int, expected: bool) -> None:
    settings = load(overrides=[f"EXPERT_PARALLEL={asked}", f"TENSOR_PARALLEL_SIZE={ranks}", "GPU_COUNT=16"]).settings
    assert uses_expert_parallel(settings) is expected


def test_batched_tokens_stay_under_the_size_that_breaks_a_kernel() -> None:
    assert "--max-num-batched-tokens=16383" in command(MAX_NUM_BATCHED_TOKENS=16383).argv
    with pytest.raises(ConfigError, match="MAX_NUM_BATCHED_TOKENS=16384"):
        command(MAX_NUM_BATCHED_TOKENS=16384)


@pytest.mark.parametrize(
    ("settings", "absent"),
    [
        ({"REASONING_PARSER": ""}, "--reasoning-parser"),
        ({"TOOL_CALL_PARSER": ""}, "--tool-call-parser"),
        ({"TOOL_CALL_PARSER": ""}, "--enable-auto-tool-choice"),
        ({"LOAD_STRATEGY": "auto"}, "--safetensors-load-strategy"),
        ({"LOAD_STRATEGY": "engine"}, "--safetensors-load-strategy"),
        ({"ENFORCE_EAGER": "off"}, "--enforce-eager"),
    ],
)
def test_what_is_off_leaves_no_flag(settings: dict[str, str], absent: str) -> None:
    assert not [word for word in command(**settings).argv if word.startswith(absent)]


@pytest.mark.parametrize("allowed", ["", "*", "images.example.org", "10.20.0.0/16"])
def test_media_is_fetched_by_the_gates_connector_whatever_is_allowed(allowed: str) -> None:
    made = command(ALLOWED_MEDIA_DOMAINS=allowed)
    assert made.env["VLLM_MEDIA_CONNECTOR"] == CONNECTOR
    assert not [word for word in made.argv if "media-domains" in word]


def test_what_auto_comes_to_on_a_machine_is_told_to_the_engine() -> None:
    settings = load(overrides=["LOAD_STRATEGY=prefetch"]).settings
    chosen = {name: engine_command(settings, python="p", model=Path("/m"), gate_file=Path("/g"), port=1, load_strategy=name).argv for name in ("lazy", "instanttensor", "engine")}
    assert "--safetensors-load-strategy=lazy" in chosen["lazy"]
    assert "--load-format=instanttensor" in chosen["instanttensor"]
    assert not [word for word in chosen["engine"] if word.startswith(("--safetensors-load-strategy", "--load-format"))]
    assert "--safetensors-load-strategy=prefetch" in engine_command(settings, python="p", model=Path("/m"), gate_file=Path("/g"), port=1).argv


def test_extra_arguments_come_last_and_word_for_word() -> None:
    extra = command(VLLM_EXTRA_ARGS="""--max-logprobs 5 --hf-overrides '{"a b": "it'"'"'s"}' --no-async-scheduling""").argv
    assert extra[-5:] == ("--max-logprobs", "5", "--hf-overrides", '{"a b": "it\'s"}', "--no-async-scheduling")


def test_hostile_values_stay_one_word() -> None:
    model = Path("/models/it's a \"model\" $HOME; rm -rf")
    settings = load().settings
    made = engine_command(settings, python="/opt/my python", model=model, gate_file=Path("/srv/run dir/gate.json"), port=1)
    assert made.argv[0] == "/opt/my python"
    assert made.argv[5] == str(model)
    assert made.env["QWEN_FP8_GATE"] == "/srv/run dir/gate.json"


def test_values_in_json_are_json() -> None:
    values = dict(word.removeprefix("--").split("=", 1) for word in command(TEMPERATURE="0", TOP_K="0").argv if word.startswith("--") and "=" in word)
    assert json.loads(values["limit-mm-per-prompt"]) == {"image": 16, "video": 2}
    assert json.loads(values["override-generation-config"]) == {"temperature": 0.0, "top_p": 0.95, "top_k": 0}


def test_variables_that_open_a_door_are_not_inherited() -> None:
    assert {"VLLM_API_KEY", "VLLM_SERVER_DEV_MODE"} <= set(NOT_INHERITED)
