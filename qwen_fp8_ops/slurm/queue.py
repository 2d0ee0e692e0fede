"""Jobs as the queue tells them. The queue is the only list there is of our jobs: a list of our own would be wrong after the first scancel."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.slurm import parse
from qwen_fp8_ops.slurm.ask import ask
from qwen_fp8_ops.slurm.script import OURS

SEPARATOR = "\x1f"
"""Between the columns: names, comments and folders may hold any character that can be typed."""
COLUMNS = ["%i", "%j", "%T", "%P", "%N", "%b", "%S", "%e", "%l", "%r", "%k", "%Z"]
FORMAT = SEPARATOR.join(COLUMNS)
OVER = frozenset({"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY", "REVOKED"})
"""States that a job does not leave; after a while (MinJobAge, 5 minutes by default) the queue forgets it."""


@dataclass(frozen=True)
class Job:
    """``starts_at`` of a pending job is SLURM's estimate. Moments are ISO 8601 in UTC; None is what is not known."""

    job_id: str
    name: str
    state: str
    partition: str
    nodes: tuple[str, ...]
    gres: str
    starts_at: str | None
    ends_at: str | None
    limit_seconds: int | None
    reason: str
    home: Path | None

    @property
    def is_over(self) -> bool:
        return self.state in OVER

    @property
    def is_running(self) -> bool:
        return self.state == "RUNNING"

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "nodes": list(self.nodes), "home": str(self.home) if self.home else None}


def our_jobs(name: str) -> tuple[Job, ...]:
    """This user's pending and running services: submitted by us, or an allocation that bears our job name.

    Raises:
        OpsError: SLURM does not tell.
    """
    rows = read_queue(ask(["squeue", "--noheader", f"--user={os.geteuid()}", f"--format={FORMAT}"]))
    return tuple(job for job in rows if job.home or job.name == name)


def find(job_id: str) -> Job | None:
    """A job in whatever state; None when the queue does not know it, or not any more.

    Raises:
        OpsError: SLURM does not tell.
    """
    try:
        rows = read_queue(ask(["squeue", "--noheader", "--states=all", f"--jobs={job_id}", f"--format={FORMAT}"]))
    except OpsError as error:
        if error.code == "slurm-refused" and "Invalid job id" in error.message:
            return None
        raise
    return next(iter(rows), None)


def read_queue(text: str) -> tuple[Job, ...]:
    rows = (line.split(SEPARATOR) for line in text.splitlines())
    return tuple(_job(*columns) for columns in rows if len(columns) == len(COLUMNS))


def _job(
    job_id: str, name: str, state: str, partition: str, nodes: str, gres: str, start: str, end: str, limit: str, reason: str, comment: str, work_dir: str
) -> Job:
    return Job(
        job_id=job_id,
        name=name,
        state=state,
        partition=partition,
        nodes=parse.hosts(nodes),
        gres="" if gres == "N/A" else gres,
        starts_at=parse.moment(start),
        ends_at=parse.moment(end),
        limit_seconds=parse.seconds(limit),
        reason="" if reason == "None" else reason,
        # The folder is also in the comment, but there a site's own rules may add to it.
        home=Path(work_dir) if comment.startswith(OURS) else None,
    )
