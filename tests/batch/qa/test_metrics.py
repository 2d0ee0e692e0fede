"""Counts that add up, and the interval around them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.client.batch.qa.metrics import Group, wilson


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    # Newcombe, Two-sided confidence intervals for the single proportion (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_that_of_the_literature(correct: int, total: int, low: float, high: float) -> None:
    found = wilson(correct, total)
    assert [round(bound, 4) for bound in found] == [low, high]


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_the_interval_holds_the_share_and_stays_within_0_and_1(total: int, share: float) -> None:
    correct = round(share * total)
    low, high = wilson(correct, total)
    assert 0 <= low <= correct / total <= high <= 1
    mirrored = wilson(total - correct, total)
    assert mirrored == pytest.approx((1 - high, 1 - low))


def test_nothing_asked_is_no_division_by_zero() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert Group().as_json()["accuracy"] == 0.0


@given(st.lists(st.sampled_from(["correct", "wrong", "not_extracted", "error"])))
def test_a_group_adds_up(kinds: list[str]) -> None:
    group = Group()
    for kind in kinds:
        group.add(kind)
    assert group.total == len(kinds) == group.correct + group.wrong + group.not_extracted + group.errors
