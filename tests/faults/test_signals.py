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
FALLS = ("program-died", "program-hangs")
HANG_SECONDS = 8
"""HANG_TIMEOUT where a hang is to be noticed; elsewhere it is long, for a busy machine must not look like one."""


def each(faults: tuple[Fault, ...]) -> list[object]:
    return [pytest.param(fault, id=str(fault).replace(", ", "-").replace(" ", "_"), marks=[pytest.mark.sample] if fault in SAMPLE else []) for fault in faults]


@pytest.mark.parametrize("fault", each(FAULTS))
def test_a_signal(service: FaultyService, fault: Fault, row: Row, plain: float | None) -> None:
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


def test_a_supervisor_that_was_stopped_for_long(service: FaultyService, row: Row) -> None:
    """When it goes on, all that it knows is old: it looks again before it takes anything for hung."""
    row.fault, row.ended = "supervisor, SIGSTOP for longer than HANG_TIMEOUT, under load", Then.WAITS
    service.started(HANG_TIMEOUT=HANG_SECONDS)
    service.watch.look()
    supervisor, core = service.victim("supervisor"), service.core()
    with Load(service.port, seconds=LOAD_SECONDS) as load:
        wait_for(lambda: load.whole >= 4, "the load flows")
        os.kill(supervisor, signal.SIGSTOP)
        time.sleep(1.5 * HANG_SECONDS)
        os.kill(supervisor, signal.SIGCONT)
        asked = service.asked()
        wait_for(lambda: service.asked() > asked + 40, "the load flows on")
    row.count(load)
    assert (load.told, load.silent) == (0, 0), load.garbled
    service.wait_answers()
    assert service.core() == core and not service.events("program-hangs")
    service.stop()
    assert service.left() == []


# --- before -------------------------------------------------------------------------------------------------------------------


def quick(fault: Fault) -> dict[str, int]:
    return {"HANG_TIMEOUT": HANG_SECONDS} if fault.hangs else {}


def loading(service: FaultyService, fault: Fault, stack: ExitStack) -> None:
    """The core takes its time; whatever else there is, is up."""
    service.behave(ready_after=600 if fault.then in (Then.TIMED_OUT, Then.SWEPT, Then.STOPPED) else 4)
    service.start(START_TIMEOUT=12 if fault.then is Then.TIMED_OUT else 600, **quick(fault))
    wait_for(lambda: service.events("program-ready"), "the media server is up")
    wait_for(service.loads, "the core loads")
    service.watch.look()
    if fault.then is not Then.TIMED_OUT:
        service.behave()


def idle(service: FaultyService, fault: Fault, stack: ExitStack) -> None:
    service.started(**quick(fault))
    service.watch.look()


def under_load(service: FaultyService, fault: Fault, stack: ExitStack) -> Load:
    service.started(**quick(fault))
    load = stack.enter_context(Load(service.port, seconds=LOAD_SECONDS))
    wait_for(lambda: load.whole >= 4, "the load flows")
    service.watch.look()
    return load


def draining(service: FaultyService, fault: Fault, stack: ExitStack) -> None:
    """One request runs for longer than anybody waits."""
    service.started(**quick(fault))
    ends: list[End] = []
    running = threading.Thread(target=lambda: ends.append(ask(service.port, "long", seconds=600)[0]))
    running.start()

    def is_told() -> None:
        running.join(60)
        assert ends == [End.ERROR], "the request that ran"

    stack.callback(is_told)
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
    name = "media" if fault.victim == "media server" else "engine0"
    wait_for(lambda: came_back(service, name), f"{name} fell and is back", 120)
    service.wait_answers()
    service.watch.look()
    assert not os.path.exists(f"/proc/{pid}")
    assert {event["name"] for event in service.events() if event["event"] in FALLS} == {name}


def came_back(service: FaultyService, name: str) -> bool:
    life = [event["event"] for event in service.events() if event.get("name") == name and event["event"] in (*FALLS, "program-ready")]
    return life[-1:] == ["program-ready"] and any(event in FALLS for event in life)


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
