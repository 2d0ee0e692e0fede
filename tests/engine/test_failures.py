"""Each log of a dead engine has its cause, its evidence and its remedy; no log of a healthy one has any.

Where the logs come from: tests/fixtures/engine_logs/SOURCES.md.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.settings import OPTIONS, Settings
from qwen_fp8_ops.engine.failures.diagnose import MOST_CHANGES, diagnose
from qwen_fp8_ops.engine.failures.rule import Diagnosis
from qwen_fp8_ops.engine.failures.rules import RULES, UNKNOWN
from qwen_fp8_ops.engine.failures.scene import Scene

LOGS = Path(__file__).parents[1] / "fixtures" / "engine_logs"
NEVER, AGAIN = False, True
MARK_OF_READY = "Application startup complete"


def settings_of(**values: Any) -> Settings:
    return load(overrides=[f"{key}={value}" for key, value in values.items()]).settings


def read(name: str) -> tuple[str, ...]:
    """As the supervisor reads it: without empty lines (``log_files.last_lines``)."""
    return tuple(line for line in (LOGS / f"{name}.log").read_text().splitlines() if line.strip())


def scene_of(name: str, returncode: int = 1, /, settings: Settings | None = None, **facts: Any) -> Scene:
    log = read(name)
    return Scene(log, returncode, settings or settings_of(), was_ready=any(MARK_OF_READY in line for line in log), **facts)


def changes(found: Diagnosis) -> dict[str, str | float]:
    return {change.key: change.value for change in found.changes}


# fmt: off
DEATHS: dict[str, tuple[str, bool, str, dict[str, str | float]]] = {
    # log: code, can the same start work, words of the cause, what to set
    "bad_flag": ("engine-arguments", NEVER, "--no-such-flag", {}),
    "bad_value": ("engine-arguments", NEVER, "--block-size", {}),
    "context_too_long": ("context-beyond-model", NEVER, "MAX_MODEL_LEN=1000000", {"MAX_MODEL_LEN": 262144}),
    "core_killed": ("process-killed", AGAIN, "killed", {}),
    "gate_missing": ("unknown", AGAIN, "gate.json is missing", {}),
    "kv_impossible": ("host-memory-not-free", NEVER, "wants 1024.0 GiB of host memory, and 13.52 GiB are free", {"CPU_KV_CACHE_GIB": 11}),
    "missing_shard": ("shard-missing", NEVER, "model-00002-of-00002.safetensors", {}),
    "port_in_use": ("port-in-use", AGAIN, "port 8010 is in use", {"PORT": "auto"}),
    "tokenizer_damaged": ("model-file-damaged", NEVER, "beside the weights", {}),
    "truncated_shard": ("shard-damaged", NEVER, "weights is damaged", {}),
    "unsupported_architecture": ("unsupported-architecture", NEVER, "'Qwen9VLForEverything'", {}),
    "worker_killed_loading": ("process-killed", AGAIN, "killed", {}),
    "worker_killed_serving": ("process-killed", AGAIN, "killed", {}),
    "wrong_path": ("model-missing", NEVER, "there is no model in /models/demo", {}),
    "composed/context_beyond_kv_cache": ("context-beyond-kv-cache", NEVER, "needs 11.75 GiB of KV cache, and 5.31 GiB are there", {"MAX_MODEL_LEN": 118400}),
    "composed/cuda_oom_graphs": ("cuda-oom-warm-up", NEVER, "after the KV cache was taken", {"GPU_MEMORY_UTIL": 0.85, "MAX_NUM_SEQS": 2, "ENFORCE_EAGER": "on"}),
    "composed/cuda_oom_load": ("cuda-oom-load", NEVER, "loaded the weights", {"MM_ENCODER_TP_MODE": "weights"}),
    "composed/cuda_oom_load_uneven": ("cuda-oom-load", NEVER, "loaded the weights", {"MM_ENCODER_TP_MODE": "weights"}),
    "composed/cuda_oom_profile": ("cuda-oom-profile", NEVER, "the largest step", {"MAX_NUM_BATCHED_TOKENS": 4096, "MAX_IMAGES": 8}),
    "composed/cuda_oom_sampler": ("cuda-oom-warm-up", NEVER, "warm-up", {"GPU_MEMORY_UTIL": 0.85, "MAX_NUM_SEQS": 2, "ENFORCE_EAGER": "on"}),
    "composed/cuda_oom_serving": ("cuda-oom-serving", AGAIN, "while it served", {"GPU_MEMORY_UTIL": 0.85, "MAX_IMAGES": 8, "MAX_NUM_BATCHED_TOKENS": 4096}),
    "composed/disk_full": ("disk-full", AGAIN, "a disk is full", {}),
    "composed/driver_too_old": ("driver-too-old", NEVER, "too old", {}),
    "composed/dtype_float16": ("dtype-float16", NEVER, "activations' type", {"DTYPE": "bfloat16"}),
    "composed/fp8_blocks": ("fp8-blocks", NEVER, "192", {"EXPERT_PARALLEL": "on", "TENSOR_PARALLEL_SIZE": 4}),
    "composed/gpu_memory_moved": ("gpu-memory-moved", AGAIN, "another process gave memory", {}),
    "composed/gpu_memory_not_free": ("gpu-memory-not-free", AGAIN, "cuda:0 has 66.1 of 79.18 GiB free", {"GPU_MEMORY_UTIL": 0.83}),
    "composed/gpu_memory_taken": ("gpu-memory-taken", AGAIN, "pid 2684311 holds 41.51 GiB", {}),
    "composed/illegal_memory_access": ("cuda-kernel", AGAIN, "an illegal memory access", {}),
    "composed/library_missing": ("package-missing", NEVER, "libcudart.so.13", {}),
    "composed/moe_backend": ("moe-backend", NEVER, "DEEPGEMM", {"EXPERT_PARALLEL": "on"}),
    "composed/nccl_error": ("nccl", AGAIN, "NCCL", {}),
    "composed/nccl_out_of_memory": ("cuda-oom-load", NEVER, "memory ran out", {"MM_ENCODER_TP_MODE": "weights"}),
    "composed/nccl_watchdog": ("nccl", AGAIN, "NCCL", {}),
    "composed/no_driver": ("no-gpu", NEVER, "fewer GPUs", {}),
    "composed/no_kv_cache_memory": ("no-kv-cache-memory", NEVER, "no memory for the KV cache", {"GPU_MEMORY_UTIL": 0.95, "MAX_NUM_BATCHED_TOKENS": 4096, "MM_ENCODER_TP_MODE": "weights"}),
    "composed/rank_port_in_use": ("rank-port-in-use", AGAIN, "ranks find each other", {}),
    "composed/shm_bus_error": ("shm-full", AGAIN, "/dev/shm", {}),
    "composed/shm_full_nccl": ("shm-full", AGAIN, "/dev/shm", {}),
    "composed/shm_too_small": ("shm-full", AGAIN, "/dev/shm", {}),
    "composed/step_timeout": ("step-timeout", AGAIN, "did not answer", {}),
    "composed/uncorrectable_ecc": ("gpu-hardware", AGAIN, "uncorrectable ECC error", {}),
    "composed/worker_killed": ("process-killed", AGAIN, "killed", {}),
}
SET: dict[str, Settings] = {
    "kv_impossible": settings_of(GPU_COUNT=0, TENSOR_PARALLEL_SIZE=1, CPU_KV_CACHE_GIB=1024),
    "composed/dtype_float16": settings_of(DTYPE="float16"),
    "composed/fp8_blocks": settings_of(EXPERT_PARALLEL="off"),
    "composed/moe_backend": settings_of(EXPERT_PARALLEL="off"),
}
"""Settings with which these start were made, where it matters."""
# fmt: on

HEALTHY = ("healthy", "refused_requests", *(f"healthy/{path.stem}" for path in sorted((LOGS / "healthy").glob("*.log"))))


@pytest.mark.parametrize("name", DEATHS)
def test_a_death_has_its_cause_and_its_remedy(name: str) -> None:
    code, retryable, words, wanted = DEATHS[name]
    found = diagnose(scene_of(name, settings=SET.get(name)))
    assert (found.code, found.retryable) == (code, retryable)
    assert words in found.cause
    assert changes(found) == wanted


def test_every_log_is_looked_at() -> None:
    there = {str(path.relative_to(LOGS)).removesuffix(".log") for path in LOGS.rglob("*.log")}
    assert there == {*DEATHS, *HEALTHY}
    assert len(HEALTHY) >= 20


@pytest.mark.parametrize("name", DEATHS)
def test_the_evidence_is_quoted_from_the_log(name: str) -> None:
    found = diagnose(scene_of(name))
    whole = " ".join(" ".join(read(name)).split())
    assert 1 <= len(found.evidence) <= 6
    for line in found.evidence:
        assert " ".join(line.split())[:60] in whole
    if found.code != "process-killed":
        assert not [line for line in found.evidence if "See root cause above" in line or "See stack trace" in line]


@pytest.mark.parametrize("name", DEATHS)
def test_the_whole_message_can_be_read(name: str) -> None:
    found = diagnose(scene_of(name))
    assert found.cause and not found.cause.endswith(".")
    assert "{" not in found.cause.replace("{'", "") and "{" not in found.fix
    assert "  " not in found.cause
    assert found.after("exit code 1").startswith("exit code 1: ")


@pytest.mark.parametrize("returncode", [0, 1, -signal.SIGTERM, -signal.SIGKILL, -signal.SIGSEGV])
@pytest.mark.parametrize("name", HEALTHY)
def test_no_rule_applies_to_a_healthy_log_however_it_ended(name: str, returncode: int) -> None:
    scene = scene_of(name, returncode)
    assert [rule.code for rule in RULES if rule is not UNKNOWN and rule.seen(scene)] == []
    found = diagnose(scene)
    assert (found.code, found.retryable, found.changes) == ("unknown", AGAIN, ())
    assert found.cause == ("its log does not say why" if returncode >= 0 else "")


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_log_accuses_nobody_wherever_its_beginning_was_cut_off(name: str) -> None:
    log = read(name)
    ready = next(index for index, line in enumerate(log) if MARK_OF_READY in line)
    for first in range(ready, len(log)):
        assert diagnose(Scene(log[first:], 1, settings_of(), was_ready=True)).cause == "its log does not say why", log[first]


@pytest.mark.parametrize("name", [name for name in DEATHS if any(MARK_OF_READY in line for line in read(name))])
def test_requests_that_were_refused_before_do_not_hide_the_cause(name: str) -> None:
    log = list(read(name))
    after_ready = 1 + next(index for index, line in enumerate(log) if MARK_OF_READY in line)
    for other in ("client_says_out_of_memory", "asgi_exception", "core_refuses_request", "refused_last"):
        noise = read(f"healthy/{other}")
        log[after_ready:after_ready] = noise[next(index for index, line in enumerate(noise) if MARK_OF_READY in line) :]
    code, _, words, _ = DEATHS[name]
    found = diagnose(Scene(tuple(log), 1, settings_of(), was_ready=True))
    assert found.code == code
    assert words in found.cause


def test_every_change_is_a_value_that_config_env_takes() -> None:
    for name in DEATHS:
        for change in diagnose(scene_of(name, settings=SET.get(name))).changes:
            OPTIONS[change.key].kind.parse(str(change.value))


def test_no_more_changes_than_a_person_reads_and_each_on_a_line() -> None:
    found = diagnose(scene_of("composed/cuda_oom_serving"))
    assert len(found.changes) == MOST_CHANGES
    assert found.remedy.splitlines() == [
        "Set GPU_MEMORY_UTIL=0.85 in config.env: more memory stays free beside the weights and the KV cache",
        "Set MAX_IMAGES=8 in config.env: fewer images in one request",
        "Set MAX_NUM_BATCHED_TOKENS=4096 in config.env: a step takes fewer tokens",
        "See which requests ran then:",
        "qwen-fp8 logs --audit",
    ]


def test_what_is_set_already_is_not_proposed() -> None:
    found = diagnose(scene_of("composed/fp8_blocks", settings=settings_of(EXPERT_PARALLEL="on", TENSOR_PARALLEL_SIZE=4)))
    assert changes(found) == {}
    lowest = settings_of(GPU_MEMORY_UTIL="0.5", MAX_NUM_SEQS=1, ENFORCE_EAGER="on")
    assert changes(diagnose(scene_of("composed/cuda_oom_graphs", settings=lowest))) == {}


def test_an_argument_of_ours_that_vllm_refuses_is_taken_out() -> None:
    settings = settings_of(VLLM_EXTRA_ARGS="--no-such-flag --seed=7")
    assert changes(diagnose(scene_of("bad_flag", settings=settings))) == {"VLLM_EXTRA_ARGS": "--seed=7"}


def test_the_damaged_file_is_named_when_a_look_at_the_files_tells_it() -> None:
    asked: list[int] = []

    def look() -> tuple[str, ...]:
        asked.append(1)
        return ("model-00003-of-00024.safetensors is too short",)

    found = diagnose(scene_of("truncated_shard", bad_files=look))
    assert found.cause == "a file of the weights is damaged: model-00003-of-00024.safetensors is too short"
    assert found.fix == "qwen-fp8 verify --repair"
    diagnose(scene_of("port_in_use", bad_files=look))
    assert asked == [1], "only the rule that needs it asks"


def test_whoever_has_the_port_is_named() -> None:
    assert diagnose(scene_of("port_in_use", port_owner=lambda: "pid 4711: nginx")).cause == "port 8010 is in use by pid 4711: nginx"
    assert diagnose(scene_of("port_in_use")).cause == "port 8010 is in use, or was until just now"


def test_codes_are_unique_and_can_be_tested_for() -> None:
    codes = [rule.code for rule in RULES]
    assert len(set(codes)) == len(codes)
    assert all(code == code.lower() and " " not in code for code in codes)
    assert RULES[-1] is UNKNOWN


COMMANDS = ("qwen-fp8 ", "nvidia-smi", "ps ", "ls ", "df ", "dmesg ", "mount ", "ulimit ", "export ", "unset ", "env ", "python3 ", "./")


def test_a_command_in_a_fix_has_a_line_of_its_own() -> None:
    for line in (line for rule in RULES for line in rule.fix.splitlines() if line != "{look}"):
        assert line[0].isupper() or line.startswith(COMMANDS), line
        assert not line[0].isupper() or not any(f": {command}" in line for command in COMMANDS), line


def test_every_rule_that_reads_the_log_has_a_log() -> None:
    """A rule without one is a guess; those of the host are in test_failures_host.py."""
    from_host = {"time-limit", "host-oom", "gpu-broken", "gpu-fault"}
    by_words = {"cpu-too-old", "settings-refused", "too-many-files", "gpu-memory-beside-cache"}
    by_words |= {f"weight-cache-{what}" for what in ("unsupported", "mismatch", "lost", "socket")}
    assert {rule.code for rule in RULES} - {code for code, *_ in DEATHS.values()} == from_host | by_words


WARM = "vllm.model_executor.model_loader.weight_cache.protocol."


@pytest.mark.parametrize(
    ("text", "code", "retryable"),
    [
        ("RuntimeError: CPUFp8BlockScaledMMKernel requires AMX tile support (Sapphire Rapids or newer)", "cpu-too-old", NEVER),
        ("pydantic_core._pydantic_core.ValidationError: 1 validation error for ParallelConfig", "settings-refused", NEVER),
        ("OSError: [Errno 24] Too many open files", "too-many-files", AGAIN),
        ("ModuleNotFoundError: No module named 'flashinfer'", "package-missing", NEVER),
        ("torch.AcceleratorError: CUDA error: invalid device ordinal", "no-gpu", NEVER),
        ("RuntimeError: The size of tensor a (192) must match the size of tensor b (256) at non-singleton dimension 0", "shard-damaged", NEVER),
        ("RuntimeError: Cannot find any model weights with `/models/qwen3-vl`", "shard-missing", NEVER),
        (f"{WARM}UnsupportedPlatformForIPCError: platform 'cpu' does not support CUDA IPC weight sharing; only CUDA and ROCm are.", "weight-cache-unsupported", NEVER),
        (f"{WARM}UnsupportedQuantForIPCError: layer lm_head: X does not support loading from pre-processed weights.", "weight-cache-unsupported", NEVER),
        (
            "qwen_fp8_ops.engine.mapped_weights.IncompleteWeightsError: weights from the cache leave visual.x without memory; WEIGHT_CACHE=off reads them",
            "weight-cache-unsupported",
            NEVER,
        ),
        (f"{WARM}CacheConfigMismatchError: WeightCacheKey mismatch on fields: ['vllm_version']", "weight-cache-mismatch", AGAIN),
        (f"{WARM}WeightCacheUnavailableError: Weight cache daemon did not become ready within 300.0s: timed out", "weight-cache-lost", AGAIN),
        (f"{WARM}WeightCacheUnavailableError: Socket directory /tmp/qfp8-1 is not owned by the current user", "weight-cache-socket", NEVER),
        (
            "ValueError: Free memory on device cuda:0 (41.0/79.18 GiB) on startup is less than the engine's budget after excluding external process's weights (0.9, 42 GiB).",
            "gpu-memory-beside-cache",
            AGAIN,
        ),
        ("ValueError: Something that nobody has seen before", "unknown", AGAIN),
    ],
)
def test_words_of_one_line(text: str, code: str, retryable: bool) -> None:
    log = ("Process EngineCore:", "Traceback (most recent call last):", '  File "/x/worker.py", line 7, in load', text)
    found = diagnose(Scene(log, 1, settings_of()))
    assert (found.code, found.retryable) == (code, retryable)
    assert found.evidence == (text,)


def test_a_crash_of_the_interpreter_is_read_though_a_signal_ended_it() -> None:
    log = (*read("healthy/gpu_serving"), "Fatal Python error: Segmentation fault")
    found = diagnose(Scene(log, -signal.SIGSEGV, settings_of(), was_ready=True))
    assert (found.code, found.cause) == ("unknown", "Fatal Python error: Segmentation fault")
    killed = diagnose(Scene(log, -signal.SIGKILL, settings_of(), was_ready=True))
    assert (killed.cause, killed.evidence, killed.after("killed by SIGKILL")) == ("", (), "killed by SIGKILL")


def test_an_empty_log_is_told_as_one() -> None:
    found = diagnose(Scene((), 1, settings_of()))
    assert (found.code, found.cause, found.evidence, found.retryable) == ("unknown", "its log does not say why", (), AGAIN)
