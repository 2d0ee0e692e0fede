"""Numbers as people read them."""

from __future__ import annotations

import pytest

from qwen_fp8_ops.report.words import duration, gib, load_line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (-5, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (3600, "1 h 0 min"), (7500, "2 h 5 min"), (86_400, "1 d 0 h"), (273_600, "3 d 4 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(None, "?"), (0, "0.00 GiB"), (1 << 30, "1.00 GiB"), (85_520_809_984, "79.65 GiB")])
def test_sizes(count: int | None, text: str) -> None:
    assert gib(count) == text


@pytest.mark.parametrize(
    ("load", "text"),
    [
        ({"phase": "init"}, "starting the engine"),
        ({"phase": "weights", "done": 3, "total": 24, "elapsed_seconds": 61, "eta_seconds": 200}, "loading weights 3/24, 1 min 1 s, about 3 min 20 s left"),
        ({"phase": "weights", "done": None, "total": None, "elapsed_seconds": 2, "eta_seconds": None}, "loading weights"),
        ({"phase": "warm-up", "elapsed_seconds": 5, "eta_seconds": 0}, "warming up, 5 s, about 0 s left"),
        ({"phase": "something new"}, "something new"),
    ],
)
def test_how_far_a_start_is(load: dict[str, object], text: str) -> None:
    assert load_line(load) == text
