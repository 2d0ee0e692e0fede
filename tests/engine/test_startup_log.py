"""A start as the engine's log tells it: a real one on the CPU, and the lines of a GPU start with eight ranks.

The lines of the GPU start are put together from vLLM's own format strings; no such log was at hand.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.engine.startup_log import GIB, PHASES, EngineMemory, StartupLog

LOGS = Path(__file__).parents[1] / "fixtures" / "engine_logs"
HEALTHY = (LOGS / "healthy.log").read_text().splitlines()


def worker(rank: int, text: str, place: str = "gpu_model_runner.py:1") -> str:
    return f"(Worker_TP{rank}_EP{rank} pid={1000 + rank}) INFO 11-21 10:00:00 [{place}] {text}"


def core(text: str) -> str:
    return f"(EngineCore pid=900) INFO 11-21 10:00:00 [core.py:1] {text}"


INIT = [core("Initializing a V1 LLM engine (v0.32.0) with config: model='/models/qwen', speculative_config=None")]
WEIGHTS = [
    *(worker(rank, "Starting to load model /models/qwen...") for rank in range(8)),
    worker(0, "Filesystem type for checkpoints: LUSTRE. Checkpoint size: 221.25 GiB. Available RAM: 900.00 GiB."),
    *(f"Loading safetensors checkpoint shards: {100 * done // 24:3d}% Completed | {done}/24 [00:00<00:00,  1.00it/s]" for done in range(25)),
    worker(0, "Loading weights took 61.50 seconds"),
]
COMPILE = [
    *(worker(rank, f"Model loading took {28.98 + rank / 100:.2f} GiB memory and 63.123456 seconds") for rank in (3, 0, 7, 1, 2, 6, 5, 4)),
    *(worker(rank, "Encoder cache will be initialized with a budget of 16384 tokens, and profiled with 1 image items") for rank in range(8)),
    worker(0, "torch.compile took 41.20 s in total"),
]
KV_CACHE = [
    worker(0, "Estimated CUDA graph memory: 1.10 GiB total"),
    *(worker(rank, f"Available KV cache memory: {room} GiB") for rank, room in enumerate((36.31, 36.29, 36.33, 36.3, 36.3, 36.3, 36.3, 36.3))),
    core("GPU KV cache size: 809,504 tokens, Maximum concurrency for 32,768 tokens per request: 24.70x"),
]
GRAPHS = [
    worker(0, "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE)"),
    *(worker(rank, f"Graph capturing finished in 12 secs, took {size} GiB") for rank, size in enumerate((0.9, 0.91, 0.95, 0.9, 0.9, 0.9, 0.9, 0.9))),
]
WARM_UP = [
    core("init engine (profile, create kv cache, warmup model) took 71.10 s"),
    "(APIServer pid=800) INFO 11-21 10:00:00 [entry.py:140] Starting vLLM server on http://127.0.0.1:8010",
    "INFO:     Application startup complete.",
]
GPU_START = [*INIT, *WEIGHTS, *COMPILE, *KV_CACHE, *GRAPHS, *WARM_UP]


def fed(*lines: str) -> StartupLog:
    log = StartupLog()
    for line in lines:
        log.feed(line)
    return log


def test_a_gpu_start_goes_through_every_phase_in_order() -> None:
    log, seen = StartupLog(), ["init"]
    for line in GPU_START:
        log.feed(line)
        if log.phase != seen[-1]:
            seen.append(log.phase)
    assert tuple(seen) == PHASES


@pytest.mark.parametrize(
    ("until", "phase"), [(INIT, "init"), (WEIGHTS, "weights"), (COMPILE, "compile"), (KV_CACHE, "kv-cache"), (GRAPHS, "graphs"), (WARM_UP, "warm-up")]
)
def test_each_part_of_the_log_is_one_phase(until: list[str], phase: str) -> None:
    assert fed(*GPU_START[: GPU_START.index(until[-1]) + 1]).phase == phase


def test_progress_counts_shards() -> None:
    log, seen = StartupLog(), []
    for line in GPU_START:
        log.feed(line)
        seen.append((log.shards_done, log.shards_total))
    assert list(dict.fromkeys(seen)) == [(None, None), *((done, 24) for done in range(25))]


def test_of_several_steps_on_one_line_the_last_counts() -> None:
    bar = "\rLoading safetensors checkpoint shards:   {}% Completed | {}/24 [00:00<00:00]"
    assert fed(bar.format(4, 1) + bar.format(8, 2)).shards_done == 2


def test_the_memory_of_eight_ranks() -> None:
    log = fed(*GPU_START)
    assert log.memory == EngineMemory(
        weights_bytes_per_rank=round(29.05 * GIB),
        kv_cache_bytes_per_rank=round(36.29 * GIB),
        kv_cache_tokens=809_504,
        graphs_bytes_per_rank=round(0.95 * GIB),
        max_concurrency=24.70,
    )
    assert sorted(log.weights_by_rank) == list(range(8))
    assert log.imbalance_percent == round((29.05 / 28.98 - 1) * 100, 2)


def test_one_rank_has_no_imbalance() -> None:
    log = fed("(Worker pid=1) INFO 11-21 10:00:00 [x.py:1] Model loading took 1.5 GiB memory and 0.1 seconds")
    assert (log.memory.weights_bytes_per_rank, log.imbalance_percent) == (round(1.5 * GIB), None)


def test_a_warning_that_looks_like_a_memory_line_is_none() -> None:
    line = "Free memory on device (78.57/79.18 GiB) on startup. Desired GPU memory utilization is (0.9, 71.26 GiB). Actual usage is 29 GiB for weight, 3 GiB for peak."
    assert fed(worker(0, line)).memory == EngineMemory()


def test_a_real_start_on_the_cpu() -> None:
    log, seen = StartupLog(), ["init"]
    for line in HEALTHY:
        log.feed(line)
        if log.phase != seen[-1]:
            seen.append(log.phase)
    assert seen == ["init", "weights", "kv-cache", "warm-up"]  # eager on a CPU: nothing is compiled or captured
    assert (log.shards_done, log.shards_total) == (2, 2)
    assert log.memory == EngineMemory(kv_cache_bytes_per_rank=GIB, kv_cache_tokens=524_288, max_concurrency=128.0)


@given(st.lists(st.sampled_from([*GPU_START, *HEALTHY]) | st.text()))
def test_a_phase_never_goes_back_and_no_line_is_a_crash(lines: list[str]) -> None:
    log, reached = StartupLog(), 0
    for line in lines:
        log.feed(line)
        assert PHASES.index(log.phase) >= reached
        reached = PHASES.index(log.phase)
