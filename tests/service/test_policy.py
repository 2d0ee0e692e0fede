from __future__ import annotations

import itertools

import pytest

from qwen_fp8_ops.service.policy import LONGEST_DELAY_SECONDS, GiveUp, Restart, after_death
from qwen_fp8_ops.service.states import ENDED, MOVES, State, check_move


def decide(deaths: list[float], *, limit: int = 5, was_ready: bool = True, retryable: bool = True) -> Restart | GiveUp:
    return after_death(deaths=deaths, now=deaths[-1], limit=limit, was_ready=was_ready, retryable=retryable, cause="it fell")


def test_delay_grows_to_a_limit() -> None:
    delays = [decision.delay_seconds for count in range(1, 10) if isinstance(decision := decide([float(n) for n in range(count)], limit=100), Restart)]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert max(delays) == LONGEST_DELAY_SECONDS


def test_budget_is_of_an_hour() -> None:
    assert isinstance(decide([0, 1, 2], limit=2), GiveUp)
    assert decide([0, 1, 5000], limit=2) == Restart(1)


def test_no_restart_allowed() -> None:
    decision = decide([0], limit=0)
    assert isinstance(decision, GiveUp)
    assert "died once within an hour; the last time: it fell" in decision.why


def test_program_that_never_served_gets_one_more_try() -> None:
    assert isinstance(decide([0], was_ready=False), Restart)
    assert isinstance(decide([0, 1], was_ready=False), GiveUp)


def test_what_can_never_work_is_not_tried() -> None:
    decision = decide([0], retryable=False)
    assert isinstance(decision, GiveUp)
    assert decision.code == "failed"


def test_every_state_can_be_reached_and_left() -> None:
    assert set(MOVES) == set(State)
    reached = set(itertools.chain.from_iterable(MOVES.values()))
    assert reached == set(State)
    assert all(MOVES[state] for state in State)


def test_an_ended_service_only_begins_anew() -> None:
    assert all(MOVES[state] == {State.PREFLIGHT} for state in ENDED)
    with pytest.raises(ValueError, match="cannot go from stopped to ready"):
        check_move(State.STOPPED, State.READY)
