"""The accounts of a run: every request that was sent, by what became of it, against the faults and against the audit. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from benchmarks.under_load.verdict import Verdict

GATHER_SECONDS = 1.0
"""The gate writes its audit lines some hundredths of a second after the answers; those of a process that is killed meanwhile die with it.
On a busy machine the thread that writes may come late. A process that ends by itself has no such excuse."""


@dataclass(frozen=True)
class Record:
    """One request. Moments are monotonic seconds; ``status`` is None when no answer began."""

    id: str
    kind: str
    sent: float
    ended: float
    status: int | None
    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True)
class Outage:
    """From a fault to the first whole answer after it."""

    what: str
    began: float
    ended: float

    def holds(self, record: Record) -> bool:
        return record.sent <= self.ended and record.ended >= self.began


def whole_since(records: Sequence[Record], moment: float) -> list[Record]:
    """Whole answers to requests that were sent after a moment, the latest first. Records lie in the order of their ends, and more may come."""
    found = []
    for record in reversed(records):
        if record.ended < moment:
            break
        if record.sent >= moment and record.verdict is Verdict.WHOLE:
            found.append(record)
    return found


def totals(records: Iterable[Record]) -> dict[str, int]:
    """How many were sent, and how many of each verdict; their sum is what was sent."""
    counts = Counter(record.verdict for record in records)
    return {"sent": sum(counts.values()), **{verdict.value: counts[verdict] for verdict in Verdict}}


def unexplained(records: Iterable[Record], outages: Sequence[Outage]) -> list[Record]:
    """What no fault excuses: everything wrong or silent, and what failed or was refused while nothing was the matter."""
    never = (Verdict.WRONG, Verdict.SILENT)
    return [
        record for record in records if record.verdict in never or (record.verdict is not Verdict.WHOLE and not any(outage.holds(record) for outage in outages))
    ]


class Gap(StrEnum):
    """How an answer and the audit can differ. Only the first is right, and explained by the kill."""

    DIED = "died_with_the_process"
    """The gate's process was killed outright while it had the request or its line: the line died with it."""
    MISSING = "missing"
    DOUBLED = "doubled"
    OTHER_STATUS = "other_status"
    DAMAGED = "damaged_lines"


@dataclass(frozen=True)
class Difference:
    """One of them, in words. ``record`` is None for a line that cannot be read: nobody knows whose it was."""

    gap: Gap
    words: str
    record: Record | None = None

    def as_json(self) -> dict[str, Any]:
        return {"gap": self.gap.value, "words": self.words, "record": asdict(self.record) if self.record else None}


@dataclass(frozen=True)
class AuditAccount:
    """``requests`` had an answer of any status; each must have one line, of that status. ``lines`` are those of requests of ours.

    A request without an answer (nobody listened, the connection broke before a status came) may have a line or none.
    """

    requests: int
    lines: int
    differences: tuple[Difference, ...]

    @property
    def agrees(self) -> bool:
        return all(difference.gap is Gap.DIED for difference in self.differences)

    def as_json(self) -> dict[str, Any]:
        counts = Counter(difference.gap for difference in self.differences)
        unexplained_first = sorted(self.differences, key=lambda difference: difference.gap is Gap.DIED)
        return {
            "requests": self.requests,
            "lines": self.lines,
            **{gap.value: counts[gap] for gap in Gap},
            "agrees": self.agrees,
            "differences": [difference.as_json() for difference in unexplained_first],
        }


def compare_audit(records: Iterable[Record], lines: Iterable[Mapping[str, Any] | str], kills: Sequence[tuple[float, float]]) -> AuditAccount:
    """
    Args:
        lines: of the audit; of one that cannot be read, where it is. Those with ids of nobody here are passed over.
        kills: when the gate's process was killed outright: not before the one moment (monotonic seconds) and not after the other.
    """
    by_id: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    found: list[Difference] = []
    for line in lines:
        if isinstance(line, str):
            found.append(Difference(Gap.DAMAGED, f"a line that cannot be read: {line}"))
        else:
            by_id[str(line.get("id"))].append(line)
    answered = mine = 0
    for record in records:
        told = [line.get("status") for line in by_id.get(record.id, [])]
        mine += len(told)
        answered += record.status is not None
        difference = _difference(record, told, kills)
        found += [difference] if difference else []
    return AuditAccount(answered, mine, tuple(found))


def _difference(record: Record, told: Sequence[Any], kills: Sequence[tuple[float, float]]) -> Difference | None:
    if len(told) > 1:
        return Difference(Gap.DOUBLED, f"{len(told)} lines for one request, of the statuses {', '.join(map(str, told))}", record)
    if record.status is None:
        return None
    if told:
        other = told[0] != record.status
        return Difference(Gap.OTHER_STATUS, f"the client had {record.status}, its line says {told[0]}", record) if other else None
    if any(record.sent <= last and first - GATHER_SECONDS <= record.ended for first, last in kills):
        return Difference(Gap.DIED, f"the client had {record.status}; the line died with the process that was killed", record)
    return Difference(Gap.MISSING, f"the client had {record.status}, and there is no line", record)


def audit_text(audit: Mapping[str, Any], outages: Sequence[Mapping[str, Any]], most: int) -> list[str]:
    """The account as JSON has it, a line for itself and one for each difference."""
    died = f"{audit[Gap.DIED]} died with a killed process"
    lines = [f"audit: {audit['lines']} lines for {audit['requests']} answers, {died}, agrees: {audit['agrees']}"]
    for difference in audit["differences"][:most]:
        record, right = difference["record"], difference["gap"] == Gap.DIED
        what = (record["kind"], record["verdict"], record["detail"], since_fault(record, outages), f"id {record['id']}") if record else ()
        lines.append(f"{'audit differs, rightly' if right else 'AUDIT DIFFERS'}: {', '.join(filter(None, (difference['words'], *what)))}")
    left = len(audit["differences"]) - most
    return [*lines, *([f"... and {left} more differences: --json has them all"] if left > 0 else [])]


def since_fault(record: Mapping[str, Any], outages: Sequence[Mapping[str, Any]]) -> str:
    """When a request ended, in words; both as JSON has them."""
    before = [outage for outage in outages if outage["began"] <= record["ended"]]
    return f"{record['ended'] - before[-1]['began']:.2f} s after {before[-1]['what']}" if before else "before the first fault"
