"""Following a submitted job from any node: pending, loading, ready, and how to reach it. The job goes on when nobody follows."""

from __future__ import annotations

import time
from pathlib import Path

from qwen_fp8_ops.cli.common import Call
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import ExitCode, OpsError
from qwen_fp8_ops.outside.files import read_json
from qwen_fp8_ops.report.endpoint_text import render_endpoint
from qwen_fp8_ops.report.job import collect_job, job_line, known_job, run_of
from qwen_fp8_ops.report.words import load_line
from qwen_fp8_ops.service.log_files import last_lines
from qwen_fp8_ops.service.states import ENDED, State
from qwen_fp8_ops.slurm.queue import Job

QUEUE_SECONDS = 5.0
"""Between two questions to the controller, which many users share; the run's files may be read more often."""
FILES_SECONDS = 1.0
PATIENCE = 24
"""Questions in a row that a controller may leave unanswered: two minutes, the time of a controller's own restart."""


def follow(call: Call, job_id: str) -> int:
    """Say what changes, until the service serves.

    Raises:
        OpsError: the job or the service ended before that, or SLURM does not answer for a long time.
    """
    said = ""
    while True:
        job = _patient(call, job_id)
        found = collect_job(job)
        service = found["service"]
        if service and service["ok"]:
            return _ready(call, job, found)
        if job.is_over or (service and State(service["state"]) in ENDED and service["error"]):
            raise _failed(job, found)
        line = load_line(service["load"]) if service and service["load"] else f"{service['state']} on {', '.join(job.nodes)}" if service else job_line(job)
        if line.partition(",")[0] != said:
            said = line.partition(",")[0]
            call.say(line)
        _wait(run_of(job))


def _patient(call: Call, job_id: str) -> Job:
    for attempt in range(PATIENCE):
        try:
            return known_job(job_id)
        except OpsError as error:
            if error.code not in ("slurm-silent", "slurm-unreachable") or attempt == PATIENCE - 1:
                raise
            call.say(f"{error.message}; the job goes on, asking again.")
            time.sleep(QUEUE_SECONDS)
    raise AssertionError("the last attempt returns or raises")


def _wait(paths: RunPaths) -> None:
    """Until the next question, or until the service's state changes."""
    before, deadline = _stamp(paths.state), time.monotonic() + QUEUE_SECONDS
    while time.monotonic() < deadline and _stamp(paths.state) == before:
        time.sleep(FILES_SECONDS)


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _ready(call: Call, job: Job, found: dict[str, object]) -> int:
    endpoint = read_json(run_of(job).endpoint) or {}
    text = f"READY: job {job.job_id}\n{render_endpoint(endpoint)}" if "url" in endpoint else f"READY: job {job.job_id}"
    call.give({**found, "endpoint": endpoint or None}, text)
    return ExitCode.DONE


def _failed(job: Job, found: dict[str, object]) -> OpsError:
    service, log = found["service"], run_of(job).job_log(job.job_id)
    error = service["error"] if isinstance(service, dict) else None
    if error:
        return OpsError(f"Job {job.job_id}: {error['message']}", code=error["code"], fix=error["fix"])
    lines = [line for line in last_lines(log, 6) if line.strip()] if log.exists() else []
    message = f"Job {job.job_id} has ended ({job.state}{f', {job.reason}' if job.reason else ''}) before the service was ready"
    return OpsError(message + "".join(f"\n    {line}" for line in lines), code="job-over", fix=f"Whole log: {log}")
