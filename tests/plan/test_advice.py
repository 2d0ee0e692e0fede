"""Advice names keys and numbers, and every number holds when the advice is followed."""

from __future__ import annotations

from typing import Any

import pytest

from qwen_fp8_ops.config.settings import OPTIONS
from qwen_fp8_ops.plan.advice import Advice, tokens_of_image
from qwen_fp8_ops.weights.facts import CARD_235B
from tests.plan.cases import demo_facts, planned

TP4 = {"GPU_COUNT": 4, "TENSOR_PARALLEL_SIZE": 4}


def advised(**values: Any) -> dict[str, Advice]:
    return {advice.key: advice for advice in planned(**values).advice}


def test_the_longest_context_starts_and_one_token_more_does_not() -> None:
    found = advised(**TP4)["MAX_MODEL_LEN"]
    assert planned(MAX_MODEL_LEN=found.value, **TP4).fits
    assert not planned(MAX_MODEL_LEN=int(found.value) + 1, **TP4).fits


def test_the_cache_would_allow_more_than_the_seeds_four() -> None:
    found = advised(overhead_gib=6)["MAX_NUM_SEQS"]
    assert found.value == 24
    assert "MAX_NUM_SEQS=4 lets 4 of them run" in found.why
    assert "24 requests of 32,768 tokens" in found.why
    assert "MAX_NUM_SEQS" not in advised(overhead_gib=6, MAX_NUM_SEQS=24)


def test_more_requests_than_the_cache_holds() -> None:
    found = advised(MAX_NUM_SEQS=64)["MAX_NUM_SEQS"]
    assert found.value == int(planned().fit.max_concurrency)
    assert "put off and computed again" in found.why


@pytest.mark.parametrize(("values", "value"), [({}, 4), ({"GPU_COUNT": 8, "TENSOR_PARALLEL_SIZE": 4}, 8)])
def test_one_engine_over_eight_gpus_against_two_over_four(values: dict[str, Any], value: int) -> None:
    found = advised(**values)["TENSOR_PARALLEL_SIZE"]
    whole, half = planned(TENSOR_PARALLEL_SIZE=8).fit, planned(TENSOR_PARALLEL_SIZE=4).fit
    assert found.value == value
    assert f"2 x {half.kv_tokens:,} tokens" in found.why
    assert f"One of 8 holds {whole.kv_tokens:,}, contexts up to 262,144" in found.why


@pytest.mark.parametrize(("values", "value"), [({}, 4), (TP4, 8)])
def test_four_gpus_against_eight(values: dict[str, Any], value: int) -> None:
    found = advised(**values)["GPU_COUNT"]
    other = planned(GPU_COUNT=value, TENSOR_PARALLEL_SIZE=value).fit
    assert found.value == value
    assert f"{other.kv_tokens:,} tokens" in found.why


def test_an_fp8_cache_holds_twice_the_tokens() -> None:
    found = advised()["KV_CACHE_DTYPE"]
    assert f"{planned(KV_CACHE_DTYPE='fp8').fit.kv_tokens:,} tokens" in found.why
    assert planned(KV_CACHE_DTYPE="fp8").fit.kv_tokens == pytest.approx(2 * planned().fit.kv_tokens, rel=1e-4)
    assert "KV_CACHE_DTYPE" not in advised(KV_CACHE_DTYPE="fp8")


def test_images_against_context() -> None:
    found = advised()["MAX_IMAGES"]
    assert found.value == 12
    assert "2,040 tokens" in found.why
    assert "MAX_MODEL_LEN=40832" in found.why
    assert 12 * 2040 + 8192 <= 32768 < 13 * 2040 + 8192
    assert "MAX_IMAGES" not in advised(MAX_MODEL_LEN=40832)
    assert "MAX_IMAGES" not in advised(MAX_IMAGES=0)


@pytest.mark.parametrize(("width", "height", "tokens"), [(1920, 1080, 2040), (1024, 1024, 1024), (256, 256, 64), (10, 10, 1)])
def test_tokens_of_an_image(width: int, height: int, tokens: int) -> None:
    assert CARD_235B.vision is not None
    assert tokens_of_image(CARD_235B.vision, width, height) == tokens


REFUSED: list[dict[str, Any]] = [
    {**TP4, "MAX_MODEL_LEN": 262144},
    {"TENSOR_PARALLEL_SIZE": 1, "GPU_COUNT": 1, "EXPERT_PARALLEL": "off"},
    {"GPU_MEMORY_UTIL": 0.4},
    {"TENSOR_PARALLEL_SIZE": 3},
    {"card": "A100 40GB", "MAX_MODEL_LEN": 131072},
    {"version": "0.28.0", "EXPERT_PARALLEL": "off"},
    {"MAX_MODEL_LEN": 300_000},
]


@pytest.mark.parametrize("values", REFUSED, ids=str)
def test_what_is_advised_to_one_that_does_not_start_makes_it_start(values: dict[str, Any]) -> None:
    plan = planned(**values)
    assert not plan.fits
    assert plan.advice
    for advice in plan.advice:
        change = {advice.key: advice.value}
        if advice.key == "GPU_COUNT":
            change["TENSOR_PARALLEL_SIZE"] = advice.value
        changed = {**values, **change}
        changed.setdefault("GPU_COUNT", 16)
        changed["GPU_COUNT"] = max(int(changed["GPU_COUNT"]), int(changed.get("TENSOR_PARALLEL_SIZE", 8)))
        assert planned(**changed).fits, advice
        assert any(character.isdigit() for character in advice.why)


@pytest.mark.parametrize("values", [{}, TP4, {"card": "H200"}, *REFUSED], ids=str)
def test_every_advice_names_a_key_and_a_value_that_it_takes(values: dict[str, Any]) -> None:
    for advice in planned(**values).advice:
        OPTIONS[advice.key].kind.parse(str(advice.value))
        assert advice.why


def test_nothing_about_gpus_is_said_to_an_engine_on_the_cpu() -> None:
    keys = {advice.key for advice in planned("demo", facts=demo_facts()).advice}
    assert keys & {"GPU_COUNT", "TENSOR_PARALLEL_SIZE", "GPU_MEMORY_UTIL"} == set()
    assert "MAX_NUM_SEQS" in keys
