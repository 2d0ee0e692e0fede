"""A submitted service as one object: what the queue says of its job, and what the run's files on the shared file system say of the
service. Works on any node: no pid of another node is judged, but a job that the queue says is over does not serve.
"""

from __future__ import annotations

from typing import Any

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import NotRunningError, OpsError
from qwen_fp8_ops.outside import clock
from qwen_fp8_ops.outside.files import read_json
from qwen_fp8_ops.report.status import collect
from qwen_fp8_ops.report.words import duration
from qwen_fp8_ops.service.states import ENDED, State
from qwen_fp8_ops.slurm import queue
from qwen_fp8_ops.slurm.queue import Job

SCHEMA = 1
REASONS = {
    "Resources": "waiting for free nodes",
    "Priority": "others are before it",
    "Dependency": "waiting for the job it is chained to",
    "BeginTime": "its time to begin has not come",
    "ReqNodeNotAvail": "the nodes it wants are not available",
    "PartitionTimeLimit": "SLURM_TIME is more than the partition allows",
    "PartitionNodeLimit": "the partition has no such nodes",
    "QOSMaxJobsPerUserLimit": "your limit of running jobs is reached",
    "AssocGrpGRES": "your account's GPUs are in use",
    "JobHeldUser": "held: scontrol release JOB",
    "JobHeldAdmin": "held by an administrator",
    "DependencyNeverSatisfied": "it can never start: what it depends on failed",
}


def known_job(job_id: str) -> Job:
    """
    Raises:
        NotRunningError: the queue does not know it.
        OpsError: SLURM does not tell.
    """
    job = queue.find(job_id)
    if job is None:
        raise NotRunningError(
            f"SLURM knows no job {job_id}", code="no-such-job", fix="qwen-fp8 jobs   lists yours; a job that has ended is forgotten after some minutes."
        )
    return job


def run_of(job: Job) -> RunPaths:
    """
    Raises:
        OpsError: it is not a service that we submitted.
    """
    if job.home is None:
        raise OpsError(f"Job {job.job_id} ({job.name}) was not submitted by `qwen-fp8 submit`", code="not-ours", fix="qwen-fp8 jobs   lists those that were.")
    return RunPaths(job.home)


def collect_job(job: Job) -> dict[str, Any]:
    """``service`` is the object of `status --json`, or None while this job has recorded nothing."""
    service = _service(job, run_of(job))
    return {"schema": SCHEMA, "ok": bool(service and service["ok"]), "job": job.as_json(), "service": service, "error": service["error"] if service else None}


def recorded_by(paths: RunPaths) -> str | None:
    """The job whose supervisor wrote the run's state last."""
    try:
        state = read_json(paths.state)
    except OpsError:
        return None
    supervisor = state.get("supervisor") if isinstance(state, dict) else None
    return supervisor.get("job_id") if isinstance(supervisor, dict) else None


def _service(job: Job, paths: RunPaths) -> dict[str, Any] | None:
    if recorded_by(paths) != job.job_id:
        return None
    status = collect(paths)
    if job.state in ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED") or State(status["state"]) in ENDED:
        return status
    if not job.is_over:
        return None  # requeued: what is recorded is of its earlier life
    message = f"Job {job.job_id} has ended ({job.state}) without a word of its supervisor"
    error = {"code": "job-over", "message": message, "fix": f"qwen-fp8 jobs logs {job.job_id}"}
    return {**status, "ok": False, "state": State.FAILED.value, "load": None, "engine": None, "error": error}


def job_line(job: Job) -> str:
    """``job 4711 PENDING (Priority: others are before it), starts in about 2 h 5 min``."""
    text = f"job {job.job_id} {job.state}"
    if job.nodes:
        text += f" on {', '.join(job.nodes)}"
    if job.state == "PENDING":
        reason = job.reason.partition(",")[0].strip("()")
        known = REASONS.get(reason)
        text += f" ({job.reason}{f': {known}' if known else ''})" if job.reason else ""
        if job.starts_at and (seconds := -clock.seconds_since(job.starts_at)) > 0:
            text += f", starts in about {duration(seconds)}"
    elif job.is_running and job.ends_at:
        text += f", {duration(-clock.seconds_since(job.ends_at))} left"
    return text
