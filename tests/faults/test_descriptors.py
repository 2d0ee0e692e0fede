"""File descriptors that are used up."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from qwen_fp8_ops.service.wakeups import RESTART_SIGNAL
from tests.faults.load import Load
from tests.faults.service import FaultyService
from tests.faults.table import Row
from tests.waiting import wait_for

pytestmark = pytest.mark.faults

DROUGHT_SECONDS = 4.0


@contextmanager
def no_descriptors(pid: int) -> Iterator[None]:
    """It keeps those that it has, and gets not one more; then as before."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("victim", ["API server", "media server", pytest.param("supervisor", marks=pytest.mark.sample)])
def test_no_descriptor_is_left(service: FaultyService, victim: str, row: Row) -> None:
    row.fault, row.ended = f"{victim}: no descriptor left for {DROUGHT_SECONDS:g} s, under load", "not replaced; ready when there are some again"
    service.started()
    service.watch.look()
    pid, core = service.victim(victim), service.core()
    with Load(service.port) as load:
        wait_for(lambda: load.whole > 4, "the load flows")
        with no_descriptors(pid):
            time.sleep(DROUGHT_SECONDS)
        answered = load.whole
        wait_for(lambda: load.whole > answered + 4, "the load flows again")
    row.count(load)
    assert load.silent == 0, load.garbled
    assert victim == "API server" or load.told == 0
    service.wait_answers()
    assert (service.victim(victim), service.core()) == (pid, core)
    service.stop()
    assert service.left() == []


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.sample), RESTART_SIGNAL], ids=["stop", "restart"])
def test_asked_while_the_supervisor_has_no_descriptor(service: FaultyService, number: signal.Signals, row: Row) -> None:
    stopping = number == signal.SIGTERM
    row.fault = f"supervisor: no descriptor left, then {'a stop' if stopping else 'a restart'}"
    row.ended = "stopped when there are some again, nothing left" if stopping else "restarted when there are some again"
    service.started()
    service.watch.look()
    assert service.process
    old = service.victim("API server")
    with no_descriptors(service.process.pid):
        service.signal(number)
        time.sleep(DROUGHT_SECONDS)
        assert service.process.poll() is None, service.said()
    if not stopping:
        wait_for(lambda: service.replaced("engine0", old), "the restart goes on", 120)
        service.wait_answers()
        service.watch.look()
        service.signal(signal.SIGTERM)
    assert service.ended()[0] == 0
    assert service.left() == []


def test_a_program_dies_while_the_supervisor_has_no_descriptor(service: FaultyService, row: Row) -> None:
    row.fault, row.ended = "supervisor: no descriptor left, API server killed", "ready again when there are some again"
    service.started()
    service.watch.look()
    assert service.process
    pid = service.victim("API server")
    with no_descriptors(service.process.pid):
        os.kill(pid, signal.SIGKILL)
        time.sleep(DROUGHT_SECONDS)
        assert service.process.poll() is None, service.said()
    wait_for(lambda: service.core() and service.answers(), "another engine answers", 120)
    service.wait_answers()
    service.watch.look()
    service.stop()
    assert service.left() == []
