"""Ending a submitted job from any node: asked kindly, then by scancel, and proven by what its supervisor recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import OpsError, TimedOutError
from qwen_fp8_ops.outside import clock
from qwen_fp8_ops.outside.files import read_json
from qwen_fp8_ops.plan.launch import LaunchPlan
from qwen_fp8_ops.report.job import known_job, recorded_by, run_of
from qwen_fp8_ops.service.outcome import leftovers_error
from qwen_fp8_ops.service.states import ENDED
from qwen_fp8_ops.slurm import queue, submit
from qwen_fp8_ops.slurm.limits import kill_wait_seconds
from qwen_fp8_ops.slurm.script import notice_seconds

POLL_SECONDS = 1.0
MARGIN_SECONDS = 60.0
DEFAULT_SECONDS = 300.0
"""For a drain, when no plan tells DRAIN_TIMEOUT."""


@dataclass(frozen=True)
class JobStopped:
    was_running: bool
    seconds: float


def stop_job(job_id: str, say: Callable[[str], None], *, force: bool) -> JobStopped:
    """
    Raises:
        NotRunningError: the queue does not know it.
        TimedOutError: it is still there after scancel and its time limits.
        OpsError: something is left, or cannot be confirmed to be gone.
    """
    began, job = clock.monotonic(), known_job(job_id)
    paths, was_running = run_of(job), job.is_running
    if job.is_over:
        return JobStopped(False, 0.0)
    if was_running and not force:
        submit.ask_to_stop(job_id)
        say(f"Job {job_id} drains: running requests may end, no new one is admitted.")
        _gone(job_id, _drain_limit(paths))
    if _is_there(job_id):
        submit.cancel(job_id)
        if not _gone(job_id, kill_wait_seconds() + MARGIN_SECONDS):
            raise TimedOutError(f"Job {job_id} is still there after scancel ({known_job(job_id).state})", fix=f"scontrol show job {job_id}")
    if was_running:
        _prove(job_id, paths)
    return JobStopped(was_running, clock.monotonic() - began)


def _prove(job_id: str, paths: RunPaths) -> None:
    """What the supervisor recorded last is its own proof; a supervisor that was killed recorded none."""
    state = read_json(paths.state) if recorded_by(paths) == job_id else None
    if state is None:
        return  # it had started nothing yet
    if state["state"] not in ENDED:
        host = state["supervisor"]["host"]
        raise OpsError(
            f"Job {job_id} is gone, but its supervisor was killed before it could confirm that nothing is left on {host}",
            code="not-confirmed",
            fix=f"The site's own cleaning at a job's end takes care of it; where there is none: ssh {host} {paths.home}/stop_service.sh",
        )
    if state.get("leftovers"):
        raise leftovers_error(state["leftovers"])


def _drain_limit(paths: RunPaths) -> float:
    value = read_json(paths.plan)
    return notice_seconds(LaunchPlan.from_json(value).settings) + MARGIN_SECONDS if value else DEFAULT_SECONDS


def _is_there(job_id: str) -> bool:
    job = queue.find(job_id)
    return job is not None and not job.is_over


def _gone(job_id: str, seconds: float) -> bool:
    deadline = clock.monotonic() + seconds
    while _is_there(job_id):
        if clock.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
