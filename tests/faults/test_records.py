"""Records that are damaged or of a newer version.

What is written in run/ is for people and for the next start. None of it may keep a service from being stopped or started.
"""

from __future__ import annotations

import json
import signal

import pytest

from tests.faults.service import FaultyService
from tests.faults.table import Row
from tests.waiting import wait_for

pytestmark = pytest.mark.faults

DAMAGE = {
    "cut short": b'{"schema": 1, "state": "rea',
    "empty": b"",
    "of a newer schema": json.dumps({"schema": 99, "state": "hibernating", "programs": {"engine0": 7}}).encode(),
    "of other kinds": json.dumps({"schema": 1, "state": "ready", "programs": [{"identity": 5}, 7], "supervisor": [], "leftovers": 3, "error": 1}).encode(),
    "no text": bytes(range(256)),
}
FILES = ("state.json", "plan.json", "poison.json", "load-times.json", "calibration.json")


def damage(service: FaultyService, file: str, how: str) -> None:
    fresh = service.paths.run / ".damage.1"
    fresh.write_bytes(DAMAGE[how])
    fresh.rename(service.paths.run / file)


def each(sample: tuple[str, str]) -> list[object]:
    pairs = [("state.json", how) for how in DAMAGE] + [(file, "cut short") for file in FILES[1:]]
    return [pytest.param(file, how, id=f"{file}-{how}".replace(" ", "_"), marks=[pytest.mark.sample] if (file, how) == sample else []) for file, how in pairs]


@pytest.mark.parametrize(("file", "how"), each(("state.json", "of a newer schema")))
def test_damaged_while_it_runs(service: FaultyService, file: str, how: str, row: Row) -> None:
    """The service takes no notice, `status` stays one valid object, the stop finds everything."""
    row.fault, row.ended = f"{file} {how}, while it runs; then stop", "nothing left"
    service.started()
    service.watch.look()
    damage(service, file, how)
    assert service.answers()
    json.dumps(service.status())
    service.stop()
    assert service.left() == []


@pytest.mark.parametrize(("file", "how"), each(("", "")))
@pytest.mark.parametrize("then", ["stop", "start"])
def test_damaged_after_the_supervisor_was_killed(service: FaultyService, file: str, how: str, then: str, row: Row) -> None:
    row.fault, row.ended = f"{file} {how}, supervisor killed; then {then}", "nothing left" if then == "stop" else "ready"
    service.started()
    service.watch.look()
    assert service.process
    service.process.kill()
    service.process.communicate()
    damage(service, file, how)
    if then == "start":
        service.start()
        service.wait_answers()
        service.watch.look()
    assert service.stop().was_running
    assert service.left() == []


def test_the_record_is_written_anew_at_the_next_change(service: FaultyService, row: Row) -> None:
    row.fault, row.ended = "state.json empty, while it runs", "written anew"
    service.started()
    damage(service, "state.json", "empty")
    service.signal(signal.SIGUSR2)
    wait_for(lambda: service.status()["state"] == "ready" and service.recorded()["generation"] == 1, "the restart is recorded")
    service.stop()
    assert service.left() == []


def test_the_gate_keeps_its_rules(service: FaultyService, row: Row) -> None:
    row.fault, row.ended = "gate.json cut short, while it runs", "the rules stay in force; drained by a new one"
    service.started(RATE_LIMIT=10_000)
    damage(service, "gate.json", "cut short")
    assert service.told()["gate"]["draining"] is False
    assert service.answers()
    assert "the gate keeps the rules it had" in service.paths.service_log.read_text()
    service.stop()
    assert service.left() == []
