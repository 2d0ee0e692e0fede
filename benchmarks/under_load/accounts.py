"""The accounts of a run: every request that was sent, by what became of it, against the faults and against the audit. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.under_load.verdict import Verdict

GATHER_SECONDS = 1.0
"""The gate writes its audit lines some hundredths of a second after the answers; those of a process that is killed meanwhile die with it.
On a busy machine the thread that writes may come late. A process that ends by itself has no such excuse."""
SHOWN = 20


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


@dataclass(frozen=True)
class AuditAccount:
    """``requests`` had an answer of any status; each must have one line. ``died``: their lines died with a killed process."""

    requests: int
    lines: int
    missing: tuple[Record, ...]
    died: tuple[Record, ...]
    doubled: tuple[Record, ...]
    different: tuple[Record, ...]
    damaged_lines: int

    @property
    def agrees(self) -> bool:
        return not (self.missing or self.doubled or self.different or self.damaged_lines)

    def as_json(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "lines": self.lines,
            "missing": len(self.missing),
            "died_with_the_process": len(self.died),
            "doubled": len(self.doubled),
            "other_status": len(self.different),
            "damaged_lines": self.damaged_lines,
            "agrees": self.agrees,
            "examples": [*map(asdict, self.missing[:SHOWN]), *map(asdict, self.different[:SHOWN])],
        }


def compare_audit(records: Iterable[Record], lines: Iterable[Mapping[str, Any] | None], kills: Sequence[tuple[float, float]]) -> AuditAccount:
    """
    Args:
        lines: of the audit; None for one that cannot be read. Those with ids of nobody here are passed over.
        kills: when the gate's process was killed outright: not before the one moment (monotonic seconds) and not after the other.
    """
    by_id: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    damaged = 0
    for line in lines:
        if line is None:
            damaged += 1
        else:
            by_id[str(line.get("id"))].append(line)
    answered = 0
    mine = 0
    missing, died, doubled, different = [], [], [], []
    for record in records:
        found = by_id.get(record.id, [])
        mine += len(found)
        if len(found) > 1:
            doubled.append(record)
        if record.status is None:
            continue
        answered += 1
        if not found:
            excused = any(record.sent <= last and first - GATHER_SECONDS <= record.ended for first, last in kills)
            (died if excused else missing).append(record)
        elif found[0].get("status") != record.status:
            different.append(record)
    return AuditAccount(answered, mine, tuple(missing), tuple(died), tuple(doubled), tuple(different), damaged)


def since_fault(record: Mapping[str, Any], outages: Sequence[Mapping[str, Any]]) -> str:
    """When a request ended, in words; both as JSON has them."""
    before = [outage for outage in outages if outage["began"] <= record["ended"]]
    return f"{record['ended'] - before[-1]['began']:.2f} s after {before[-1]['what']}" if before else "before the first fault"
