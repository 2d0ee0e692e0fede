"""The memory plan against what engines really logged, and against the engine's own code where it is installed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.plan.cards import GIB, Hardware, described
from qwen_fp8_ops.weights.facts import CARD_235B, facts_from_config
from tests.plan.cases import CONFIG_30B, demo_facts, planned

TP4 = {"GPU_COUNT": 4, "TENSOR_PARALLEL_SIZE": 4}
KEYS = {
    "schema", "fits", "error_expected", "checkpoint_bytes", "parameters", "tensor_parallel", "expert_parallel", "vllm_version", "per_rank",
    "kv_tokens", "max_concurrency", "largest_max_model_len", "advice",
}  # fmt: skip
RANK_KEYS = {"weights_bytes", "experts_bytes", "attention_bytes", "embeddings_bytes", "vision_bytes", "kv_bytes_per_token", "kv_room_bytes", "overhead_bytes"}


def close(share: float, expected: float) -> Any:
    return pytest.approx(expected, rel=share)


# --- the 235B model ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "weights_gib", "sharded_gib"),
    [
        ({}, 28.98, 28.05),
        (TP4, 56.45, 55.65),
        ({**TP4, "EXPERT_PARALLEL": "on"}, 56.45, 55.65),
        ({"EXPERT_PARALLEL": "off"}, 29.00, 28.06),
    ],
)
def test_the_weights_of_a_rank_as_calculated_by_hand(layout: dict[str, Any], weights_gib: float, sharded_gib: float) -> None:
    assert planned(**layout).fit.rank.weights_bytes / GIB == close(0.0005, weights_gib)
    assert planned(MM_ENCODER_TP_MODE="weights", **layout).fit.rank.weights_bytes / GIB == close(0.0005, sharded_gib)


def test_the_parts_of_a_rank() -> None:
    rank = planned().fit.rank
    assert rank.experts_bytes / GIB == close(0.001, 26.44)
    assert rank.attention_bytes / GIB == close(0.005, 0.83)
    assert rank.vision_bytes / GIB == close(0.005, 1.07)
    assert planned(MM_ENCODER_TP_MODE="weights").fit.rank.vision_bytes / GIB == close(0.05, 0.14)
    parts = rank.experts_bytes + rank.attention_bytes + rank.embeddings_bytes + rank.vision_bytes + rank.replicated_bytes + rank.buffers_bytes
    assert rank.weights_bytes == parts


def test_the_checkpoint() -> None:
    plan = planned()
    assert plan.facts.checkpoint_bytes / 1e9 == close(0.0005, 237.57)
    assert plan.facts.parameters == 235_670_022_896


@pytest.mark.parametrize(("layout", "kv", "expected"), [({}, "auto", 48_128), (TP4, "auto", 48_128), ({}, "fp8", 24_064), (TP4, "fp8_e4m3", 24_064), ({"TENSOR_PARALLEL_SIZE": 2}, "bfloat16", 96_256)])
def test_a_token_of_kv_cache_with_heads_repeated_beyond_their_number(layout: dict[str, Any], kv: str, expected: int) -> None:
    assert planned(KV_CACHE_DTYPE=kv, **layout).fit.rank.kv_bytes_per_token == expected


@pytest.mark.parametrize(
    ("layout", "kv", "overhead", "tokens", "full"),
    [
        ({}, "auto", 6, 809_504, 24.7),
        ({}, "fp8", 6, 1_619_024, 49.4),
        ({**TP4, "EXPERT_PARALLEL": "on"}, "auto", 6, 196_688, 6.0),
        ({**TP4, "EXPERT_PARALLEL": "on"}, "fp8", 6, 393_376, 12.0),
    ],
)
def test_tokens_with_six_gib_of_overhead(layout: dict[str, Any], kv: str, overhead: float, tokens: int, full: float) -> None:
    plan = planned(KV_CACHE_DTYPE=kv, overhead_gib=overhead, **layout)
    assert plan.fit.kv_tokens == close(0.0005, tokens)
    assert plan.fit.max_concurrency == close(0.005, full)
    assert plan.fits


@pytest.mark.parametrize(("overhead", "tp4", "tp8"), [(4, 0.92, 3.26), (6, 0.75, 3.09), (8, 0.58, 2.92)])
def test_the_whole_context_needs_eight_gpus(overhead: float, tp4: float, tp8: float) -> None:
    assert planned(MAX_MODEL_LEN=262144, overhead_gib=overhead, **TP4).fit.max_concurrency == close(0.01, tp4)
    assert planned(MAX_MODEL_LEN=262144, overhead_gib=overhead).fit.max_concurrency == close(0.01, tp8)


def test_the_public_log_of_this_model_on_eight_h100() -> None:
    """vLLM 0.15.1, 131,072 tokens, 2 sequences, vision tower split: 28.24 GiB of weights, 40.07 GiB = 894,064 tokens of KV cache."""
    plan = planned(version="0.15.1", MM_ENCODER_TP_MODE="weights", MAX_MODEL_LEN=131072, MAX_NUM_SEQS=2)
    assert plan.overhead.source == "assumed"
    assert plan.fit.rank.weights_bytes / GIB == close(0.01, 28.24)
    assert plan.fit.rank.logged_bytes / GIB == close(0.001, 28.24)
    assert plan.fit.kv_room_bytes / GIB == close(0.01, 40.07)
    assert plan.fit.kv_tokens == close(0.01, 894_064)
    assert plan.fit.budget_bytes / GIB == close(0.0005, 71.26)


def test_another_moe_as_an_engine_logged_it() -> None:
    """Qwen3-30B-A3B-FP8 on one GPU (vllm#25350): 29.09 GiB of weights; 10.12 GiB of fp8 KV cache are 221,000 tokens."""
    facts = facts_from_config(CONFIG_30B)
    plan = planned(facts=facts, TENSOR_PARALLEL_SIZE=1, GPU_COUNT=1, KV_CACHE_DTYPE="fp8", MAX_MODEL_LEN=40960, EXPERT_PARALLEL="off")
    assert plan.fit.rank.weights_bytes / GIB == close(0.01, 29.09)
    room = 10.12 * GIB
    overhead = (plan.fit.budget_bytes - plan.fit.rank.weights_bytes - room) / GIB
    again = planned(facts=facts, overhead_gib=overhead, TENSOR_PARALLEL_SIZE=1, GPU_COUNT=1, KV_CACHE_DTYPE="fp8", MAX_MODEL_LEN=40960, EXPERT_PARALLEL="off")
    assert again.fit.kv_tokens == close(0.01, 221_000)


# --- the engine on the CPU --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "tokens", "concurrency"),
    [
        ({}, 524_288, 128.00),
        ({"TENSOR_PARALLEL_SIZE": 2}, 1_048_576, 256.00),
        ({"TENSOR_PARALLEL_SIZE": 2, "MAX_MODEL_LEN": 5000, "KV_CACHE_DTYPE": "fp8"}, 2_048_000, 409.60),
        ({"CPU_KV_CACHE_GIB": 3}, 3 * 524_288, 384.00),
    ],
)
def test_tokens_on_the_cpu_are_those_that_vllm_logged_for_the_demo_checkpoint(values: dict[str, Any], tokens: int, concurrency: float) -> None:
    plan = planned("demo", facts=demo_facts(), **values)
    assert (plan.fit.kv_tokens, plan.fit.max_concurrency) == (tokens, concurrency)
    assert plan.fits


def test_the_hosts_memory_bounds_the_cache_on_the_cpu() -> None:
    """Numbers and words of a real start that failed: 1,024 GiB asked for on a host with 15.34."""
    hardware = Hardware("CPU", round(13.52 * GIB), round(15.34 * GIB), "a test")
    plan = planned("demo", facts=demo_facts(), hardware=hardware, CPU_KV_CACHE_GIB=1024)
    assert not plan.fits
    assert plan.error_expected in engine_log("kv_impossible")
    assert [(advice.key, advice.value) for advice in plan.advice] == [("CPU_KV_CACHE_GIB", 13)]


def engine_log(name: str) -> str:
    from pathlib import Path

    return (Path(__file__).parent.parent / "fixtures" / "engine_logs" / f"{name}.log").read_text()


# --- what vLLM refuses ------------------------------------------------------------------------------------------------------------


def test_the_whole_context_on_four_gpus_is_refused_in_the_engines_words() -> None:
    plan = planned(MAX_MODEL_LEN=262144, overhead_gib=6, **TP4)
    assert not plan.fits
    assert plan.fit.key == "MAX_MODEL_LEN"
    assert plan.error_expected is not None
    assert "To serve at least one request with the model's max seq len (262144), (11.75 GiB KV cache is needed, which is larger than the available" in plan.error_expected
    assert f"the estimated maximum model length is {plan.fit.longest}. " in plan.error_expected
    assert planned(MAX_MODEL_LEN=plan.fit.longest, overhead_gib=6, **TP4).fits
    assert not planned(MAX_MODEL_LEN=plan.fit.longest + 1, overhead_gib=6, **TP4).fits


def test_more_than_the_model_was_made_for_is_refused_as_in_a_real_log() -> None:
    plan = planned("demo", facts=demo_facts(), MAX_MODEL_LEN=1_000_000)
    assert plan.error_expected
    assert plan.error_expected in engine_log("context_too_long")


@pytest.mark.parametrize(("version", "fits"), [("0.11.0", False), ("0.15.1", False), ("0.28.1", False), ("0.29.0", True), ("0.32.0", True), ("1.0.0", True)])
def test_experts_that_do_not_split_into_blocks(version: str, fits: bool) -> None:
    plan = planned(version=version, EXPERT_PARALLEL="off")
    assert plan.fits is fits
    advised = {advice.key: advice for advice in plan.advice}
    if fits:
        assert plan.fit.rank.experts_bytes > planned().fit.rank.experts_bytes  # smaller blocks, more scales
        assert "Triton" in advised["EXPERT_PARALLEL"].why
    else:
        assert plan.error_expected == "ValueError: The output_size of gate's and up's weight = 192 is not divisible by weight quantization block_n = 128."
        assert advised["EXPERT_PARALLEL"].value == "on"
        assert advised["TENSOR_PARALLEL_SIZE"].value == 4
    assert planned(version=version).fits
    assert "Triton" not in str(planned(version=version).advice)


def test_blocks_that_would_be_too_small_are_refused_by_every_version() -> None:
    narrow = replace(CARD_235B, expert_width=8 * 48)  # 48 a rank: gcd 16
    plan = planned(facts=narrow, EXPERT_PARALLEL="off")
    assert plan.error_expected == "ValueError: The output_size of gate's and up's weight = 48 is not divisible by weight quantization block_n = 128."


def test_heads_must_divide() -> None:
    plan = planned(TENSOR_PARALLEL_SIZE=3, EXPERT_PARALLEL="on")
    assert plan.error_expected == "ValueError: Total number of attention heads (64) must be divisible by tensor parallel size (3)."
    assert plan.fit.key == "TENSOR_PARALLEL_SIZE"


def test_weights_larger_than_a_gpu() -> None:
    plan = planned(TENSOR_PARALLEL_SIZE=1, GPU_COUNT=1, EXPERT_PARALLEL="off")
    assert plan.error_expected and plan.error_expected.startswith("torch.OutOfMemoryError: CUDA out of memory.")
    assert {("GPU_COUNT", 4), ("GPU_COUNT", 8)} <= {(advice.key, advice.value) for advice in plan.advice}


def test_weights_that_leave_nothing_for_a_cache() -> None:
    plan = planned(GPU_MEMORY_UTIL=0.4)
    assert plan.error_expected and plan.error_expected.startswith("ValueError: No available memory for the cache blocks.")
    assert (plan.fit.kv_tokens, plan.fit.longest) == (0, 0)
    assert "GPU_MEMORY_UTIL" in {advice.key for advice in plan.advice}


# --- GPUs as they are now ---------------------------------------------------------------------------------------------------------


def live(free_gib: list[float]) -> Hardware:
    card = described("H100 80GB", None)
    return replace(card, free_bytes=tuple(round(free * GIB) for free in free_gib), indexes=tuple(range(len(free_gib))))


def test_every_gpu_must_have_its_share_free() -> None:
    plan = planned(hardware=live([78.5] * 5 + [70.0] + [78.5] * 2))
    assert plan.error_expected == (
        "ValueError: Free memory on device cuda:5 (70.0/79.18 GiB) on startup is less than desired GPU memory utilization (0.9, 71.26 GiB). "
        "Decrease GPU memory utilization or reduce GPU memory used by other processes."
    )
    assert next((advice.key, advice.value) for advice in plan.advice) == ("GPU_MEMORY_UTIL", 0.88)


def test_a_gpu_that_no_rank_uses_may_be_full() -> None:
    assert planned(hardware=live([78.5] * 4 + [0.1] * 4), TENSOR_PARALLEL_SIZE=4).fits


def test_a_weight_cache_takes_room_beside_the_engines_share_and_holds_the_weights_once() -> None:
    with_cache, without = planned(WEIGHT_CACHE="on"), planned()
    assert with_cache.fit == without.fit, "the same weights, the same KV cache"
    assert with_cache.as_json()["per_rank"]["weight_cache_bytes"] == GIB
    assert without.as_json()["per_rank"]["weight_cache_bytes"] == 0
    assert planned(hardware=live([71.5] * 8)).fits
    short = planned(hardware=live([71.5] * 8), WEIGHT_CACHE="on")
    assert short.error_expected == (
        "ValueError: Free memory on device cuda:0 (41.34/79.18 GiB) on startup is less than the engine's budget after excluding external process's weights "
        "(0.9, 42.1 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
    )
    assert next((advice.key, advice.value) for advice in short.advice) == ("GPU_MEMORY_UTIL", 0.89)
    assert planned(hardware=live([72.5] * 8), WEIGHT_CACHE="on").fits


def test_nearly_everything_is_more_than_an_idle_gpu_has() -> None:
    assert ("GPU_MEMORY_UTIL", 0.95) in {(advice.key, advice.value) for advice in planned(GPU_MEMORY_UTIL=0.98).advice}
    assert "GPU_MEMORY_UTIL" not in {advice.key for advice in planned(GPU_MEMORY_UTIL=0.95).advice}


# --- the record -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [{}, {**TP4, "MAX_MODEL_LEN": 262144}])
def test_the_json_that_scripts_rely_on(values: dict[str, Any]) -> None:
    plan = planned(**values)
    value = json.loads(json.dumps(plan.as_json()))
    assert set(value) >= KEYS
    assert set(value["per_rank"]) >= RANK_KEYS
    assert (value["schema"], value["fits"], value["error_expected"]) == (1, plan.fits, plan.error_expected)
    assert value["advice"] and all(set(one) == {"key", "value", "why"} for one in value["advice"])
    assert value["vllm_version"] == "0.32.0"


def test_the_graphs_are_counted_from_021_on_and_not_without_them() -> None:
    assert planned(version="0.20.2").overhead.bytes == 3 * GIB
    assert (planned(version="0.21.0").overhead.bytes, planned(version="0.21.0").overhead.graphs_bytes) == (4 * GIB, GIB)
    assert planned(ENFORCE_EAGER="on").overhead.bytes == 3 * GIB
    assert "assumed until a start on this host" in planned().overhead.why


@given(
    ranks=st.sampled_from([1, 2, 4, 8, 16]),
    parallel=st.sampled_from(["auto", "on", "off"]),
    length=st.integers(256, 300_000),
    util=st.floats(0.1, 0.98),
    kv=st.sampled_from(["auto", "fp8"]),
    card=st.sampled_from(["A100 40GB", "A100 80GB", "H100", "H100 NVL", "H200", "B200", "L40S"]),
)
def test_a_plan_holds_together_whatever_is_asked(ranks: int, parallel: str, length: int, util: float, kv: str, card: str) -> None:
    asked = {"TENSOR_PARALLEL_SIZE": ranks, "GPU_COUNT": 16, "EXPERT_PARALLEL": parallel, "GPU_MEMORY_UTIL": f"{util:.3f}", "KV_CACHE_DTYPE": kv}
    plan = planned(card=card, MAX_MODEL_LEN=length, **asked)
    fit = plan.fit
    assert plan.fits is (fit.error is None) is (fit.key == "")
    assert ranks * fit.rank.weights_bytes >= plan.facts.checkpoint_bytes * 0.99
    if plan.fits:
        assert length <= fit.longest <= plan.facts.max_position
        assert fit.kv_tokens * fit.rank.kv_bytes_per_token <= fit.kv_room_bytes * 1.001
        assert fit.max_concurrency >= 1
    elif fit.key == "MAX_MODEL_LEN" and fit.longest >= 256:
        assert planned(card=card, MAX_MODEL_LEN=min(fit.longest, 262144), **asked).fits
    json.dumps(plan.as_json())
