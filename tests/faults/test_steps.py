"""The supervisor killed at each step of a start and of a stop.

No test code is in the product: each step is recognised from outside, by the files it writes and the processes it makes.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.faults.leftovers import members
from tests.faults.service import PATIENCE_SECONDS, FaultyService
from tests.faults.table import Row

pytestmark = pytest.mark.faults

LOOK_SECONDS = 0.0005


@dataclass(frozen=True)
class Step:
    """``seen`` tells that it was just done."""

    name: str
    seen: Callable[[FaultyService], bool]


def state_is(name: str) -> Callable[[FaultyService], bool]:
    return lambda service: f'"state": "{name}"' in read(service)


def read(service: FaultyService) -> str:
    return service.paths.state.read_text() if service.paths.state.exists() else ""


def is_ready(program: str) -> Callable[[FaultyService], bool]:
    return lambda service: any(event["name"] == program for event in service.events("program-ready"))


START = (
    Step("the lock is taken", lambda service: service.paths.lock.exists()),
    Step("preflight is recorded", state_is("preflight")),
    Step("the plan is published", lambda service: service.paths.plan.exists()),
    Step("the key is written", lambda service: service.paths.keys.exists()),
    Step("starting is recorded", state_is("starting")),
    Step("the gate is told", lambda service: service.paths.gate.exists()),
    Step("the first program runs", lambda service: bool(members(service.paths))),
    Step("the programs are recorded", lambda service: bool(service.events("program-started")) and '"pid": ' in read(service)),
    Step("the engine's core runs", lambda service: bool(service.core())),
    Step("the media server is ready", is_ready("media")),
    Step("the engine is ready", is_ready("engine0")),
    Step("ready is recorded", state_is("ready")),
)
STOP = (
    Step("draining is recorded", state_is("draining")),
    Step("stopping is recorded", state_is("stopping")),
    Step("the core is gone", lambda service: not service.core()),
    Step("every program is gone", lambda service: not members(service.paths)),
    Step("stopped is recorded", state_is("stopped")),
    Step("the endpoint is withdrawn", lambda service: not service.paths.endpoint.exists()),
)


def each(steps: tuple[Step, ...], sample: str = "") -> list[object]:
    return [pytest.param(step, id=step.name.replace(" ", "_"), marks=[pytest.mark.sample] if step.name == sample else []) for step in steps]


def kill_at(service: FaultyService, step: Step) -> None:
    """The supervisor may be quicker than we look: one that has ended by itself meanwhile was killed after its last step."""
    assert service.process
    deadline = time.monotonic() + PATIENCE_SECONDS
    while service.process.poll() is None and not step.seen(service):
        assert time.monotonic() < deadline, f"it did not happen that {step.name}"
        time.sleep(LOOK_SECONDS)
    service.watch.look()
    service.process.kill()
    service.process.communicate()


@pytest.mark.parametrize("step", each(START, sample="the first program runs"))
def test_killed_while_starting_then_stopped(service: FaultyService, step: Step, row: Row) -> None:
    row.fault, row.ended = f"start, when {step.name}; then stop", "nothing left"
    service.start()
    kill_at(service, step)
    service.stop()
    assert service.left() == []
    assert service.status()["state"] in ("stopped", "failed") and not service.status()["ok"]


@pytest.mark.parametrize("step", each(START))
def test_killed_while_starting_then_started(service: FaultyService, step: Step, row: Row) -> None:
    row.fault, row.ended = f"start, when {step.name}; then start", "ready"
    service.start()
    kill_at(service, step)
    start_again(service)


@pytest.mark.parametrize("step", each(STOP, sample="the core is gone"))
def test_killed_while_stopping_then_stopped(service: FaultyService, step: Step, row: Row) -> None:
    row.fault, row.ended = f"stop, when {step.name}; then stop", "nothing left"
    service.started()
    service.watch.look()
    service.signal(signal.SIGTERM)
    kill_at(service, step)
    service.stop()
    assert service.left() == []
    assert service.status()["state"] == "stopped"


@pytest.mark.parametrize("step", each(STOP))
def test_killed_while_stopping_then_started(service: FaultyService, step: Step, row: Row) -> None:
    row.fault, row.ended = f"stop, when {step.name}; then start", "ready"
    service.started()
    service.watch.look()
    service.signal(signal.SIGTERM)
    kill_at(service, step)
    start_again(service)


def start_again(service: FaultyService) -> None:
    service.start()
    service.wait_answers()
    service.watch.look()
    service.stop()
    assert service.left() == []
