"""The allocation this process runs in, and the line that asks for one."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from qwen_fp8_ops.config.settings import Settings
from qwen_fp8_ops.outside import clock, slurm


@dataclass(frozen=True)
class Allocation:
    """``ends_at`` is ISO 8601 in UTC; None when there is no end or SLURM does not tell."""

    job_id: str
    partition: str | None
    node: str | None
    gpus: int | None
    ends_at: str | None


def current(environ: Mapping[str, str]) -> Allocation | None:
    """None outside of an allocation. Asks squeue for the end: SLURM 22.05 does not put it into the environment."""
    job_id = environ.get("SLURM_JOB_ID")
    if not job_id:
        return None
    gpus = environ.get("SLURM_GPUS_ON_NODE", "")
    return Allocation(
        job_id=job_id,
        partition=environ.get("SLURM_JOB_PARTITION"),
        node=environ.get("SLURMD_NODENAME") or environ.get("SLURM_JOB_NODELIST"),
        gpus=int(gpus) if gpus.isdecimal() else None,
        ends_at=_end(job_id),
    )


def _end(job_id: str) -> str | None:
    reply = slurm.run(["squeue", "--noheader", f"--jobs={job_id}", "--format=%e"])
    text = reply.stdout.strip() if reply.ok else ""
    try:
        return clock.iso(datetime.fromisoformat(text).timestamp())  # squeue speaks local time
    except ValueError:
        return None  # N/A, NONE, or a job that is gone


def salloc_line(settings: Settings) -> str:
    """The command that gets an allocation of the size config.env asks for."""
    words = ["salloc"]
    if settings.slurm_partition:
        words += ["-p", settings.slurm_partition]
    words += [
        f"--job-name={settings.slurm_job_name}",
        f"--gres=gpu:{settings.gpu_count}",
        f"--mem={settings.slurm_mem}",
        f"--cpus-per-task={settings.slurm_cpus}",
        f"--time={settings.slurm_time}",
    ]
    return shlex.join(words)
