"""Signals to every process at every moment."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.faults.faults import FAULTS, SAMPLE, Fault, Then
from tests.faults.load import End, Load, ask
from tests.faults.service import FaultyService
from tests.faults.table import Row
from tests.waiting import wait_for

pytestmark = pytest.mark.faults

LOAD_SECONDS = 0.3
"""What a request takes: some are always under way."""


def each(faults: tuple[Fault, ...]) -> list[object]:
    return [pytest.param(fault, id=str(fault).replace(", ", "-").replace(" ", "_"), marks=[pytest.mark.sample] if fault in SAMPLE else []) for fault in faults]


@pytest.mark.parametrize("fault", each(FAULTS))
def test_a_signal(service: FaultyService, fault: Fault, row: Row, plain: float) -> None:
    row.fault, row.ended = str(fault), fault.then
    with ExitStack() as load:
        before = PREPARE[fault.moment](service, fault, load)
        pid = service.victim(fault.victim)
        began = time.monotonic()
        os.kill(pid, fault.signal)
        JUDGE[fault.then](service, fault, pid, before)
        if fault.then in (Then.READY, Then.UNWATCHED):
            row.recovered(time.monotonic() - began, plain)
    if before:
        row.count(before)
        assert before.whole and before.silent == 0, before.garbled
        assert not (fault.engine_serves_on and before.told), "the engine served on, and a request was lost"
    if service.process and service.process.poll() is None:
        service.stop()
    assert service.left() == []


# --- before -------------------------------------------------------------------------------------------------------------------


def loading(service: FaultyService, fault: Fault, stack: ExitStack) -> None:
    """The core takes its time; whatever else there is, is up."""
    service.behave(ready_after=600 if fault.then in (Then.TIMED_OUT, Then.SWEPT, Then.STOPPED) else 4)
    service.start(START_TIMEOUT=12 if fault.then is Then.TIMED_OUT else 600)
    wait_for(lambda: service.events("program-ready"), "the media server is up")
    wait_for(service.core, "the core is begun")
    service.watch.look()
    if fault.then is not Then.TIMED_OUT:
        service.behave()


def idle(service: FaultyService, fault: Fault, stack: ExitStack) -> None:
    service.started()
    service.watch.look()


def under_load(service: FaultyService, fault: Fault, stack: ExitStack) -> Load:
    service.started()
    load = stack.enter_context(Load(service.port, seconds=LOAD_SECONDS))
    wait_for(lambda: load.whole >= 4, "the load flows")
    service.watch.look()
    return load


def draining(service: FaultyService, fault: Fault, stack: ExitStack) -> None:
    """One request runs for longer than anybody waits."""
    service.started()
    ends: list[End] = []
    running = threading.Thread(target=lambda: ends.append(ask(service.port, "long", seconds=600)[0]))
    running.start()
    stack.callback(lambda: (running.join(60), pytest.fail(f"the request that ran came to {ends}") if ends != [End.ERROR] else None))
    service.wait_in_flight(1)
    service.signal(signal.SIGINT)
    service.wait_state("draining")
    service.watch.look()


PREPARE: dict[str, Callable[[FaultyService, Fault, ExitStack], Load | None]] = {
    "loading": loading,
    "idle": idle,
    "under load": under_load,
    "draining": draining,
}


# --- after --------------------------------------------------------------------------------------------------------------------


def ready(service: FaultyService, fault: Fault, pid: int, load: Load | None) -> None:
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "it was replaced", 120)
    service.wait_answers()
    service.watch.look()
    names = {event["name"] for event in service.events("program-died") + service.events("program-hangs")}
    assert names == {"media" if fault.victim == "media server" else "engine0"}


def stopped(service: FaultyService, fault: Fault, pid: int, load: Load | None) -> None:
    if load:
        service.wait_state("draining", "stopping", "stopped")
        load.end()  # whoever comes now is told to come again
    code, said = service.ended()
    assert code == (130 if fault.moment == "loading" else 0), said
    assert service.status()["state"] == "stopped"
    assert not service.events("program-died"), "a death during a stop is none"


def timed_out(service: FaultyService, fault: Fault, pid: int, load: Load | None) -> None:
    code, said = service.ended()
    assert code == 6, said
    assert service.status()["error"]["code"] == "start-timeout"


def unwatched(service: FaultyService, fault: Fault, pid: int, load: Load | None) -> None:
    bury(service)
    assert service.status()["error"]["code"] == "supervisor-gone"
    assert service.answers(), "the engine needs no supervisor to answer"
    if load:
        answered = load.whole
        wait_for(lambda: load.whole > answered + 4, "the load flows on")
        load.end()  # the start ends what it finds
    service.start()
    service.wait_answers()
    service.watch.look()


def swept(service: FaultyService, fault: Fault, pid: int, load: Load | None) -> None:
    bury(service)
    assert service.stop().was_running


def waits(service: FaultyService, fault: Fault, pid: int, load: Load | None) -> None:
    if fault.moment in ("idle", "under load"):
        assert service.answers(), "the engine needs no supervisor to answer"
    else:
        time.sleep(1)
    os.kill(pid, signal.SIGCONT)
    if fault.moment == "draining":
        stopped(service, fault, pid, load)
    else:
        service.wait_answers()
        assert not service.events("program-died") and not service.events("program-hangs")


def bury(service: FaultyService) -> None:
    assert service.process
    service.process.communicate(timeout=60)


JUDGE: dict[Then, Callable[[FaultyService, Fault, int, Load | None], None]] = {
    Then.READY: ready,
    Then.STOPPED: stopped,
    Then.TIMED_OUT: timed_out,
    Then.UNWATCHED: unwatched,
    Then.SWEPT: swept,
    Then.WAITS: waits,
}
