"""Requests against faults, and against the audit."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from benchmarks.under_load.accounts import Difference, Gap, Outage, Record, audit_text, compare_audit, totals, unexplained, whole_since
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
    for lines in ([], [{"id": "b", "status": None}], [{"id": "b", "status": 200}]):
        found = compare_audit([GOOD, unheard], [{"id": "a", "status": 200}, {"id": "a stranger's", "status": 200}, *lines], [])
        assert found.agrees
        assert found.as_json() == {
            "requests": 1, "lines": 1 + len(lines), "missing": 0, "died_with_the_process": 0, "doubled": 0, "other_status": 0, "damaged_lines": 0,
            "agrees": True, "differences": [],
        }  # fmt: skip


DIFFERENCES: list[tuple[list[dict[str, object] | str], Gap, str]] = [
    ([], Gap.MISSING, "the client had 200, and there is no line"),
    ([{"id": "a", "status": 200}, {"id": "a", "status": None}], Gap.DOUBLED, "2 lines for one request, of the statuses 200, None"),
    ([{"id": "a", "status": 500}], Gap.OTHER_STATUS, "the client had 200, its line says 500"),
    ([{"id": "a", "status": 200}, "audit.jsonl line 7: '{\"id'"], Gap.DAMAGED, "a line that cannot be read: audit.jsonl line 7: '{\"id'"),
]


@pytest.mark.parametrize(("lines", "gap", "words"), DIFFERENCES)
def test_an_audit_that_does_not_agree_names_each_difference(lines: list[dict[str, object] | str], gap: Gap, words: str) -> None:
    found = compare_audit([GOOD], lines, [])
    assert not found.agrees
    whose = None if gap is Gap.DAMAGED else GOOD
    assert found.differences == (Difference(gap, words, whose),)
    told = json.loads(json.dumps(found.as_json()))
    assert told[gap.value] == 1
    assert told["differences"] == [{"gap": gap.value, "words": words, "record": asdict(whose) if whose else None}]
    first, second = audit_text(told, [{"what": "kill -9 of EngineCore", "began": 0.5, "ended": 9.0}], 5)
    assert "agrees: False" in first
    assert second.startswith(f"AUDIT DIFFERS: {words}")
    assert second.endswith(", text, answered whole, 1.50 s after kill -9 of EngineCore, id a") == (whose is not None)


def test_what_may_differ_is_told_after_what_may_not_and_only_so_much() -> None:
    killed = [replace(GOOD, id=str(number)) for number in range(3)]
    late = Record("late", "text", 8.0, 9.0, 503, Verdict.REFUSED, "stopping")
    told = compare_audit([*killed, late], [], [(1.5, 1.5)]).as_json()
    assert (told["died_with_the_process"], told["missing"]) == (3, 1)
    lines = audit_text(told, [], 2)
    assert "3 died with a killed process, agrees: False" in lines[0]
    assert lines[1] == "AUDIT DIFFERS: the client had 503, and there is no line, text, refused with 503, stopping, before the first fault, id late"
    assert lines[2].startswith("audit differs, rightly: the client had 200; the line died with the process that was killed, text")
    assert lines[3:] == ["... and 2 more differences: --json has them all"]


@pytest.mark.parametrize(("killed", "died"), [((1.5, 1.5), True), ((2.9, 2.9), True), ((0.0, 1.1), True), ((5.0, 5.0), False), ((0.1, 0.5), False)])
def test_a_line_may_die_only_with_its_process(killed: tuple[float, float], died: bool) -> None:
    found = compare_audit([GOOD], [], [killed])
    assert [difference.gap for difference in found.differences] == [Gap.DIED if died else Gap.MISSING]
    assert found.agrees == died
