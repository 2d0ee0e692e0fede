"""``status --job ID``: a submitted service, seen from any node."""

from __future__ import annotations

from qwen_fp8_ops.cli.common import Call
from qwen_fp8_ops.errors import ExitCode


def job_status(call: Call, job_id: str) -> int:
    """Exit code 0 when it serves, 3 when it does not."""
    from qwen_fp8_ops.report.job import collect_job, job_line, known_job
    from qwen_fp8_ops.report.text import render_status

    job = known_job(job_id)
    found = collect_job(job)
    service = (
        render_status(found["service"]) if found["service"] else "It has not started yet." if job.state == "PENDING" else "It has recorded nothing so far."
    )
    call.give(found, f"{job_line(job)}\n{service}")
    return ExitCode.DONE if found["ok"] else ExitCode.NOT_RUNNING
