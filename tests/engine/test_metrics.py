"""The engine's /metrics page. The fixture is a real one: vLLM 0.32 after three chats of 18 + 24 tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.engine.metrics import EngineMetrics, median, parse_metrics

PAGE = (Path(__file__).parents[1] / "fixtures" / "metrics.txt").read_text()
NOTHING = EngineMetrics(0, 0, 0.0, 0, 0.0, 0.0, None, None)


def test_a_real_page() -> None:
    found = parse_metrics(PAGE)
    assert replace(found, ttft_seconds_p50=None, itl_seconds_p50=None) == EngineMetrics(0, 0, 0.0, 0, 54.0, 72.0, None, None, steps=72.0)
    assert found.ttft_seconds_p50 == pytest.approx(0.0175)
    assert found.itl_seconds_p50 == pytest.approx(0.0075)


def test_every_name_that_is_read_is_on_the_real_page() -> None:
    busy = {"num_requests_running": "3.0", "num_requests_waiting": "2.0", "kv_cache_usage_perc": "0.25", "num_preemptions_total": "1.0"}
    page = PAGE
    for name, value in busy.items():
        line = f'vllm:{name}{{engine="0",model_name="qwen3-vl-fp8"}} '
        assert line + "0.0\n" in page
        page = page.replace(line + "0.0", line + value)
    found = parse_metrics(page)
    assert (found.running, found.waiting, found.kv_cache_usage, found.preemptions) == (3, 2, 0.25, 1)


def test_two_engines_behind_one_server_are_summed_and_the_fullest_counts() -> None:
    page = "\n".join(
        f'vllm:{name}{{engine="{engine}",model_name="m"}} {value}'
        for engine, running, usage in ((0, "3.0", "0.9"), (1, "4.0", "0.2"))
        for name, value in (("num_requests_running", running), ("kv_cache_usage_perc", usage), ("prompt_tokens_total", "1e+06"))
    )
    found = parse_metrics(page)
    assert (found.running, found.kv_cache_usage, found.prompt_tokens) == (7, 0.9, 2e6)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "e", "-", "1e999", "", "1 2", "0x10"])
def test_a_value_that_is_no_number_is_passed_over(value: str) -> None:
    assert parse_metrics(f"vllm:num_requests_running {value}\nvllm:num_requests_waiting 2") == EngineMetrics(0, 2, 0.0, 0, 0.0, 0.0, None, None)


@pytest.mark.parametrize("page", ["", "\n\n", "# HELP vllm:x y", "<html>", "other:num_requests_running 3.0", 'vllm:time_to_first_token_seconds_bucket{le="?"} 3'])
def test_a_page_of_something_else_is_all_zero(page: str) -> None:
    assert parse_metrics(page) == NOTHING


@given(st.lists(st.sampled_from([*PAGE.splitlines()]) | st.text(alphabet='vllm:num_requests_running{}le="+Infa,. 0129e-', max_size=40)))
def test_no_page_is_a_crash(lines: list[str]) -> None:
    found = parse_metrics("\n".join(lines))
    assert found.running >= 0


@pytest.mark.parametrize(
    ("buckets", "expected"),
    [
        ({}, None),
        ({1.0: 0, float("inf"): 0}, None),
        ({1.0: 10, float("inf"): 10}, 0.5),
        ({1.0: 5, 2.0: 10, float("inf"): 10}, 1.0),
        ({1.0: 0, 2.0: 4, float("inf"): 4}, 1.5),
        ({1.0: 1, 2.0: 4, float("inf"): 4}, 1 + 1 / 3),
        ({1.0: 1, float("inf"): 10}, 1.0),
        ({float("inf"): 3}, 0.0),
    ],
)
def test_the_median_of_a_histogram(buckets: dict[float, float], expected: float | None) -> None:
    assert median(buckets) == (None if expected is None else pytest.approx(expected))


@given(st.lists(st.floats(0.001, 100), min_size=1), st.lists(st.floats(0.001, 100), min_size=1, unique=True))
def test_the_median_lies_in_the_bucket_of_the_middle_value(values: list[float], bounds: list[float]) -> None:
    edges = [*sorted(bounds), float("inf")]
    found = median({edge: float(sum(value <= edge for value in values)) for edge in edges})
    middle = sorted(values)[(len(values) - 1) // 2]
    low, high = max((edge for edge in edges if edge < middle), default=0.0), min(edge for edge in edges if edge >= middle)
    assert found is not None
    assert low - 1e-9 <= found <= (low if high == float("inf") else high) + 1e-9
