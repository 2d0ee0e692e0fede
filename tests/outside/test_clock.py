"""Stamps and durations."""

from __future__ import annotations

import pytest

from qwen_fp8_ops.outside import clock


@pytest.mark.parametrize(("seconds", "stamp"), [(0, "1970-01-01T00:00:00.000Z"), (1_700_000_000.5, "2023-11-14T22:13:20.500Z")])
def test_a_stamp_is_utc_to_the_millisecond(seconds: float, stamp: str) -> None:
    assert clock.iso(seconds) == stamp


def test_a_stamp_can_be_counted_from() -> None:
    assert clock.seconds_since(clock.now()) < 60
    assert clock.seconds_since("1970-01-01T00:00:00.000Z") > 1e9
    assert clock.seconds_since("9000-01-01T00:00:00Z") < 0
    assert clock.monotonic() <= clock.monotonic()
