"""Requests against faults, and against the audit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.under_load.accounts import Outage, Record, compare_audit, totals, unexplained, whole_since
from benchmarks.under_load.verdict import Verdict

GOOD = Record("a", "text", 1.0, 2.0, 200, Verdict.WHOLE)
OUTAGE = Outage("kill", 10.0, 30.0)


def test_every_request_is_in_one_column() -> None:
    records = [GOOD, GOOD, replace(GOOD, verdict=Verdict.FAILED), replace(GOOD, verdict=Verdict.UNREACHED)]
    found = totals(records)
    assert found.pop("sent") == 4 == sum(found.values())
    assert found["answered whole"] == 2 and found["silent"] == 0


def test_an_answer_after_a_fault_is_one_to_a_question_after_it() -> None:
    before, across, failed = GOOD, Record("b", "text", 1.5, 9.0, 200, Verdict.WHOLE), Record("c", "text", 6.0, 9.5, 500, Verdict.FAILED)
    first, second = Record("d", "text", 6.0, 10.0, 200, Verdict.WHOLE), Record("e", "text", 5.0, 11.0, 200, Verdict.WHOLE)
    records = [before, across, failed, first, second]
    assert whole_since(records, 5.0) == [second, first]
    assert whole_since(records, 10.5) == whole_since([], 0.0) == []


@pytest.mark.parametrize(
    ("record", "excused"),
    [
        (GOOD, True),
        (Record("b", "text", 9.0, 10.5, None, Verdict.FAILED), True),
        (Record("c", "text", 20.0, 20.0, None, Verdict.UNREACHED), True),
        (Record("d", "text", 25.0, 25.1, 503, Verdict.REFUSED), True),
        (Record("e", "text", 31.0, 32.0, 500, Verdict.FAILED), False),
        (Record("f", "text", 5.0, 6.0, None, Verdict.UNREACHED), False),
        (Record("g", "text", 20.0, 21.0, None, Verdict.SILENT), False),
        (Record("h", "text", 20.0, 21.0, 200, Verdict.WRONG), False),
    ],
)
def test_a_fault_excuses_what_failed_in_it_but_neither_silence_nor_a_wrong_answer(record: Record, excused: bool) -> None:
    assert unexplained([record], [OUTAGE]) == ([] if excused else [record])


def test_an_audit_with_one_line_for_each_answer_agrees() -> None:
    unheard = Record("b", "text", 3.0, 4.0, None, Verdict.FAILED)
    found = compare_audit([GOOD, unheard], [{"id": "a", "status": 200}, {"id": "a stranger's", "status": 200}], [])
    assert found.agrees
    assert found.as_json() == {
        "requests": 1, "lines": 1, "missing": 0, "died_with_the_process": 0, "doubled": 0, "other_status": 0, "damaged_lines": 0, "agrees": True,
        "examples": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ([], "missing"),
        ([{"id": "a", "status": 200}, {"id": "a", "status": 200}], "doubled"),
        ([{"id": "a", "status": 500}], "other_status"),
        ([{"id": "a", "status": 200}, None], "damaged_lines"),
    ],
)
def test_an_audit_that_does_not_agree_says_how(lines: list[dict[str, object] | None], what: str) -> None:
    found = compare_audit([GOOD], lines, [])
    assert not found.agrees
    told = found.as_json()
    assert told[what] == 1
    assert [row["id"] for row in told["examples"]] == (["a"] if what in ("missing", "other_status") else [])


@pytest.mark.parametrize(("killed", "died"), [((1.5, 1.5), True), ((2.9, 2.9), True), ((0.0, 1.1), True), ((5.0, 5.0), False), ((0.1, 0.5), False)])
def test_a_line_may_die_only_with_its_process(killed: tuple[float, float], died: bool) -> None:
    found = compare_audit([GOOD], [], [killed])
    assert (found.died, found.missing) == (((GOOD,), ()) if died else ((), (GOOD,)))
