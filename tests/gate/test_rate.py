from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.gate.rate import MAX_CALLERS, RateLimiter


@pytest.mark.parametrize("per_minute", [1, 3, 60, 1000])
def test_a_burst_of_the_limit_passes_then_one_for_each_share_of_the_minute(per_minute: int) -> None:
    limiter = RateLimiter()
    assert [limiter.take("a", per_minute, 1000.0) for _ in range(per_minute)] == [0.0] * per_minute
    wait = limiter.take("a", per_minute, 1000.0)
    assert wait == pytest.approx(60 / per_minute)
    assert limiter.take("a", per_minute, 1000.0 + wait * 0.5) == pytest.approx(wait * 0.5)
    assert limiter.take("a", per_minute, 1000.0 + wait) == 0.0
    assert limiter.take("a", per_minute, 1000.0 + wait) > 0


def test_refused_requests_cost_nothing() -> None:
    limiter = RateLimiter()
    limiter.take("a", 1, 0.0)
    assert all(limiter.take("a", 1, float(second)) > 0 for second in range(60))
    assert limiter.take("a", 1, 60.0) == 0.0


def test_callers_do_not_pay_for_each_other() -> None:
    limiter = RateLimiter()
    assert limiter.take("a", 1, 0.0) == 0.0
    assert limiter.take("b", 1, 0.0) == 0.0
    assert limiter.take("a", 1, 0.0) > 0


@given(st.integers(1, 20), st.lists(st.floats(0, 300), min_size=1, max_size=200))
def test_no_minute_ever_sees_more_than_a_full_bucket_and_its_refill(per_minute: int, times: list[float]) -> None:
    limiter = RateLimiter()
    passed = [time for time in sorted(times) if limiter.take("a", per_minute, time) == 0.0]
    assert passed
    for begin in passed:
        assert sum(begin <= time < begin + 60 for time in passed) <= 2 * per_minute


def test_memory_stays_bounded_and_the_quietest_is_forgotten_first() -> None:
    limiter = RateLimiter()
    limiter.take("quiet", 1, 0.0)
    for number in range(MAX_CALLERS - 1):
        limiter.take(f"address {number}", 1, 0.0)
    limiter.take("address 0", 1, 0.0)
    held = sys.getsizeof(limiter._full_at)
    for number in range(5 * MAX_CALLERS):
        limiter.take(f"made up {number}", 1, 1.0)
        if number == 0:
            assert limiter.take("address 0", 1, 1.0) > 0, "the busy one is still known"
    assert len(limiter) == MAX_CALLERS
    assert sys.getsizeof(limiter._full_at) <= 2 * held
    assert limiter.take("quiet", 1, 1.0) == 0.0
