"""Busy or hung: what silence is."""

from __future__ import annotations

from dataclasses import replace

from qwen_fp8_ops.engine.metrics import EngineMetrics
from qwen_fp8_ops.service.pulse import Pulse

IDLE = EngineMetrics(0, 0, 0.0, 0, 100.0, 50.0, None, None)
BUSY = replace(IDLE, running=2, waiting=5)


def test_an_idle_engine_is_never_silent() -> None:
    pulse = Pulse()
    pulse.read(IDLE, 0)
    pulse.read(IDLE, 10_000)
    assert pulse.silent_seconds(20_000) == 0


def test_nothing_known_yet_is_no_silence() -> None:
    assert Pulse().silent_seconds(1000) == 0


def test_work_and_no_movement_is_silence() -> None:
    pulse = Pulse()
    pulse.read(BUSY, 10)
    for moment in range(20, 100, 10):
        pulse.read(BUSY, moment)
    assert pulse.silent_seconds(100) == 90


def test_anything_that_moves_is_a_sign_of_life() -> None:
    for moved in ({"kv_cache_usage": 0.1}, {"prompt_tokens": 101.0}, {"generation_tokens": 51.0}, {"steps": 1.0}, {"waiting": 4}, {"preemptions": 1}):
        pulse = Pulse()
        pulse.read(BUSY, 0)
        pulse.read(replace(BUSY, **moved), 400)
        assert pulse.silent_seconds(450) == 50, moved


def test_silence_counts_from_the_work_and_not_from_the_idleness_before_it() -> None:
    pulse = Pulse()
    pulse.read(IDLE, 0)
    pulse.asked(1000)
    assert pulse.silent_seconds(1030) == 30


def test_an_unanswered_question_is_work_even_if_the_counters_cannot_be_read() -> None:
    pulse = Pulse()
    pulse.asked(100)
    pulse.asked(200)  # the next one, after the first timed out
    assert pulse.silent_seconds(300) == 200
    pulse.answered(310)
    assert pulse.silent_seconds(10_000) == 0


def test_a_full_queue_that_moves_keeps_a_question_waiting_without_being_silent() -> None:
    pulse = Pulse()
    pulse.asked(0)
    for moment in range(10, 1000, 10):
        pulse.read(replace(BUSY, generation_tokens=float(moment)), moment)
    assert pulse.silent_seconds(1000) == 10


def test_time_in_which_nobody_looked_is_no_silence() -> None:
    pulse = Pulse()
    pulse.read(BUSY, 0)
    pulse.asked(5)
    pulse.missed(1000)
    assert pulse.silent_seconds(1010) == 10
    idle = Pulse()
    idle.missed(1000)
    assert idle.silent_seconds(2000) == 0
