"""What processes hold, over time: memory, descriptors, threads; and whether it grows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 1 << 20
LEAST_SECONDS = 60.0
"""A slope over less would be noise, multiplied to an hour."""


@dataclass(frozen=True)
class Sample:
    """``memory_bytes``: anonymous and shared pages, which only the process can give back; files that the kernel keeps at hand are not counted."""

    moment: float
    role: str
    pid: int
    memory_bytes: int
    descriptors: int
    threads: int


def read(role: str, pid: int, moment: float) -> Sample | None:
    """None when the process is gone."""
    folder = Path(f"/proc/{pid}")
    try:
        rows = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        descriptors = len(list((folder / "fd").iterdir()))
    except OSError:
        return None
    if "RssAnon" not in rows:
        return None  # a zombie
    memory = sum(int(rows[name].split()[0]) for name in ("RssAnon", "RssShmem")) * 1024
    return Sample(moment, role, pid, memory, descriptors, int(rows["Threads"]))


def serving(samples: Iterable[Sample], outages: Sequence[tuple[float, float]]) -> list[Sample]:
    """Without those from within an outage: an engine that loads grows, and should."""
    return [sample for sample in samples if not any(began <= sample.moment <= ended for began, ended in outages)]


def settled(samples: Iterable[Sample], warm_up_seconds: float) -> list[list[Sample]]:
    """The samples of each process without its first seconds; processes that lived no longer are left out."""
    by_pid: defaultdict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_pid[sample.pid].append(sample)
    runs = [[sample for sample in run if sample.moment - run[0].moment >= warm_up_seconds] for run in by_pid.values()]
    return [run for run in runs if len(run) > 1]


def slope_per_second(runs: Sequence[Sequence[tuple[float, float]]]) -> float | None:
    """Least squares over several runs of (seconds, value): one slope for all, a beginning of its own for each. None for no span of time."""
    above = below = 0.0
    for run in runs:
        middle = sum(moment for moment, _ in run) / len(run)
        above += sum((moment - middle) * value for moment, value in run)
        below += sum((moment - middle) ** 2 for moment, _ in run)
    return above / below if below > 0 else None


def growth(samples: Sequence[Sample], warm_up_seconds: float) -> dict[str, Any] | None:
    """What one role's processes held once they were warm, and how it grew by the hour; None without samples.

    A slope is None where no process was watched for a minute after its warm-up.
    """
    if not samples:
        return None
    runs = settled(samples, warm_up_seconds)
    seconds = sum(run[-1].moment - run[0].moment for run in runs)
    enough = any(run[-1].moment - run[0].moment >= LEAST_SECONDS for run in runs)

    def by_the_hour(field: str) -> float | None:
        slope = slope_per_second([[(sample.moment, getattr(sample, field)) for sample in run] for run in runs]) if enough else None
        return None if slope is None else slope * 3600

    memory = by_the_hour("memory_bytes")
    descriptors, threads = by_the_hour("descriptors"), by_the_hour("threads")
    last = samples[-1]
    return {
        "processes": len({sample.pid for sample in samples}),
        "watched_seconds": round(seconds, 1),
        "memory_mib": round(last.memory_bytes / MIB, 1),
        "memory_mib_most": round(max(sample.memory_bytes for sample in samples) / MIB, 1),
        "memory_mib_per_hour": None if memory is None else round(memory / MIB, 2),
        "descriptors": last.descriptors,
        "descriptors_most": max(sample.descriptors for sample in samples),
        "descriptors_per_hour": None if descriptors is None else round(descriptors, 1),
        "threads": last.threads,
        "threads_most": max(sample.threads for sample in samples),
        "threads_per_hour": None if threads is None else round(threads, 1),
    }
