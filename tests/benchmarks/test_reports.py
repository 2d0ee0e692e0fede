"""What the two benchmarks say in the end, and what makes them fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import recovery, soak
from benchmarks.under_load import demo_service
from benchmarks.under_load.accounts import Record, compare_audit, totals
from benchmarks.under_load.verdict import Verdict
from benchmarks.under_load.vitals import growth
from tests.benchmarks.test_vitals import life

GOOD = Record("a", "text", 1.0, 2.0, 200, Verdict.WHOLE)
AUDIT = compare_audit([GOOD], [{"id": "a", "status": 200}], []).as_json()
ROUNDS = [recovery.Round("EngineCore", 10.0, 11.5, 0.4, 1.1, 10.0), recovery.Round("EngineCore", 20.0, 21.0, 0.2, 1.0, 19.8)]


def soaked(**changes: Any) -> dict[str, Any]:
    flat = growth(life(1, 0, first_mib=100, mib_per_hour=0), 0)
    return {
        "seconds": 400.0, "requests": totals([GOOD]), "files": totals([GOOD]), "faults": {"SIGKILL of media": 2}, "unexplained": [], "audit": AUDIT,
        "processes": {"supervisor": flat, "gate": growth(life(2, 0, first_mib=1, mib_per_hour=50, seconds=30), 0), "media": None},
        "outages": [], "log_bytes_most": {"service.log": 20_000}, "problem": "", "left_by_stop": "", **changes,
    }  # fmt: skip


def test_medians_are_of_each_figure_over_the_rounds() -> None:
    found = recovery.medians(ROUNDS)
    assert found == {"plain": 15.0, "recovery": 16.25, "noticed": 0.3, "delay": 1.05, "start": 14.9, "ratio": 1.1}
    assert recovery.medians([]) is None


def test_the_table_of_a_recovery_has_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    bad = {"kind": "text", "verdict": "silent", "detail": "nothing came"}
    result = {
        "medians": {"EngineCore": recovery.medians(ROUNDS), "API server": None},
        "requests": totals([GOOD]),
        "audit": AUDIT,
        "unexplained": [bad],
        "outages": [],
        "forced_stops_of_plain_restarts": 1,
    }
    recovery.show(json.loads(json.dumps(result)))
    told = capsys.readouterr().out
    assert "EngineCore" in told and "1.100" in told and "API server" not in told
    assert "sent 1, answered whole 1" in told and "silent 0" in told and "agrees: True" in told
    assert "was killed: 1" in told
    assert "UNEXPLAINED: text silent: nothing came" in told


def test_a_recovery_and_a_soak_name_what_the_audit_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    lacking = compare_audit([GOOD], [], []).as_json()
    recovery.show(
        {"medians": {}, "requests": totals([GOOD]), "audit": lacking, "unexplained": [], "outages": [], "forced_stops_of_plain_restarts": 0},
    )
    soak.show(soaked(audit=lacking))
    assert capsys.readouterr().out.count("AUDIT DIFFERS: the client had 200, and there is no line, text, answered whole") == 2


def test_lines_that_come_late_are_waited_for_and_no_longer_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_service.time, "sleep", lambda seconds: None)
    lacking, whole = compare_audit([GOOD], [], []), compare_audit([GOOD], [{"id": "a", "status": 200}], [])
    looks = iter([lacking, lacking, whole])
    assert demo_service.agreed(lambda: next(looks)) is whole
    monkeypatch.setattr(demo_service, "LINES_SECONDS", 0.0)
    assert demo_service.agreed(lambda: lacking) is lacking


def test_a_line_that_cannot_be_read_is_told_by_its_place(tmp_path: Path) -> None:
    service = demo_service.DemoService(tmp_path)
    logs = service.home / "logs"
    logs.mkdir()
    (logs / "audit.jsonl").write_text('{"id": "a"}\n{"id": "b\n')
    (logs / "audit.jsonl.1").write_text("[1]\n")
    assert list(service.audit_lines()) == [{"id": "a"}, """audit.jsonl line 2: '{"id": "b'""", "audit.jsonl.1 line 1: '[1]'"]


def test_a_quiet_soak_is_a_success_and_its_table_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads(json.dumps(soaked()))
    assert soak.faults_of(result) == []
    soak.show(result)
    told = capsys.readouterr().out
    assert "SIGKILL of media 2" in told and "supervisor" in told and "service.log 0.02 MB" in told and "FAILED" not in told


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"problem": "interrupted"}, "interrupted"),
        ({"unexplained": [{"kind": "text"}]}, "1 requests"),
        ({"audit": {**AUDIT, "agrees": False}}, "audit"),
        ({"processes": {"supervisor": growth(life(1, 0, first_mib=1, mib_per_hour=20), 0), "media": None}}, "supervisor grows by 20.0 MiB"),
        ({"left_by_stop": "pid 7"}, "pid 7"),
    ],
)
def test_what_makes_a_soak_fail(changes: dict[str, Any], said: str) -> None:
    found = soak.faults_of({**soaked(), "processes": {"supervisor": None, "media": None}, **changes})
    assert len(found) == 1 and said in found[0]
