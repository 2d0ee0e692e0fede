from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.client.batch.pace import WINDOW_SECONDS, Pace
from qwen_fp8_ops.client.batch.slots import Slots, StoppedError


def window(pace: Pace, now: float, rate: float, *, full: bool = True, waiting: int | None = None) -> float:
    """One window in which the server gives ``rate`` tokens per second; returns when it ends."""
    end = now + WINDOW_SECONDS + 1
    for _ in range(2 * pace.limit):
        pace.answered(int(rate * (end - now) / (2 * pace.limit)))
    assert pace.is_over(end) or pace.fixed
    if pace.is_over(end):
        pace.close(end, full=full, waiting=waiting)
    return end


def limits(pace: Pace, rate: Callable[[int], float], windows: int, **how: bool) -> list[int]:
    now, found = 0.0, []
    pace.begin(now)
    for _ in range(windows):
        now = window(pace, now, rate(pace.limit), **how)
        found.append(pace.limit)
    return found


@pytest.mark.parametrize("capacity", [1, 4, 10, 37, 100])
def test_it_finds_what_the_server_can_do(capacity: int) -> None:
    """A server that works on so many at once, and lets the rest wait."""
    found = limits(Pace(4), lambda limit: 1000.0 * min(limit, capacity), 60)
    settled = found[30:]
    assert min(settled) >= max(4, 0.9 * capacity)
    assert max(settled) <= max(5, 1.6 * capacity)
    assert settled.count(settled[-1]) >= 20  # attempts become rare


def test_a_fixed_one_stays() -> None:
    pace = Pace(7, fixed=True)
    pace.overload()
    assert set(limits(pace, lambda limit: 1.0 / limit, 10)) == {7}


def test_it_does_not_grow_when_the_images_come_too_slowly() -> None:
    assert set(limits(Pace(8), lambda limit: 1000.0 * limit, 10, full=False)) == {8}


def test_an_overload_halves_it_at_once_and_it_grows_again_later() -> None:
    pace = Pace(64)
    pace.begin(0)
    pace.overload()
    assert pace.is_over(0.1)
    pace.close(0.1, full=True, waiting=0)
    assert pace.limit == 32
    assert max(limits(pace, lambda limit: 1000.0 * limit, 20)) > 64


def test_a_queue_in_the_server_shrinks_it() -> None:
    pace = Pace(40)
    pace.begin(0)
    now = window(pace, 0, 1000, waiting=11)
    assert pace.limit == 30
    window(pace, now, 1000, waiting=3)
    assert pace.limit == 30  # a few wait: neither more nor less


@given(st.lists(st.tuples(st.booleans(), st.floats(1, 1e5), st.none() | st.integers(0, 500)), max_size=40))
def test_it_never_leaves_its_bounds(events: list[tuple[bool, float, int | None]]) -> None:
    pace, now = Pace(4, most=32), 0.0
    pace.begin(now)
    for overloaded, rate, waiting in events:
        if overloaded:
            pace.overload()
        now = window(pace, now, rate, waiting=waiting)
        assert 1 <= pace.limit <= 32


def test_places_are_given_in_turn_and_their_number_may_change() -> None:
    async def scene() -> None:
        slots, entered, leave = Slots(2), [], asyncio.Event()

        async def visit(name: int) -> None:
            async with slots.place():
                entered.append(name)
                await leave.wait()

        visits = [asyncio.create_task(visit(name)) for name in range(6)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (entered, slots.taken, slots.was_full) == ([0, 1], 2, True)
        visits[2].cancel()
        slots.limit = 4
        await asyncio.sleep(0.01)
        assert entered == [0, 1, 3, 4]
        slots.limit = 1
        leave.set()
        await asyncio.gather(*visits, return_exceptions=True)
        assert (entered, slots.taken) == ([0, 1, 3, 4, 5], 0)

    asyncio.run(scene())


def test_a_place_that_was_won_by_a_cancelled_visitor_is_not_lost() -> None:
    async def scene() -> None:
        slots = Slots(1)
        await slots.take()
        visitor = asyncio.create_task(slots.take())
        await asyncio.sleep(0)
        slots.free()  # the place is the visitor's now, who has not run yet
        visitor.cancel()
        await asyncio.gather(visitor, return_exceptions=True)
        assert slots.taken == 0
        await asyncio.wait_for(slots.take(), 30)

    asyncio.run(scene())


def test_when_it_stops_nobody_waits_any_more() -> None:
    async def scene() -> None:
        slots = Slots(1)
        await slots.take()
        visitor = asyncio.create_task(slots.take())
        await asyncio.sleep(0)
        slots.stop()
        with pytest.raises(StoppedError):
            await visitor
        with pytest.raises(StoppedError):
            await slots.take()

    asyncio.run(scene())
