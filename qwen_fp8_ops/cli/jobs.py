"""``jobs``: our services in the queue; `jobs stop`, `jobs logs`."""

from __future__ import annotations

import click

from qwen_fp8_ops.cli.common import Call, shared_options
from qwen_fp8_ops.errors import ExitCode


@click.group(invoke_without_command=True, epilog="Examples:\n\n\b\n  qwen-fp8 jobs\n  qwen-fp8 jobs logs 4711 -f\n  qwen-fp8 jobs stop 4711")
@shared_options
def jobs(call: Call) -> int | None:
    """List your services in SLURM's queue; stop one, or read its log, from any node."""
    if click.get_current_context().invoked_subcommand:
        return None
    from qwen_fp8_ops.report.job import job_line
    from qwen_fp8_ops.slurm.queue import our_jobs

    found = our_jobs(call.configuration().settings.slurm_job_name)
    text = "\n".join(f"{job_line(job)}   {job.home or f'{job.name}, not submitted by qwen-fp8'}" for job in found)
    call.give({"schema": 1, "ok": True, "jobs": [job.as_json() for job in found]}, text or "No service of yours is in the queue.")
    return ExitCode.DONE


@jobs.command(epilog="Examples:\n\n\b\n  qwen-fp8 jobs stop 4711\n  qwen-fp8 jobs stop 4711 --force")
@click.argument("job_id")
@click.option("--force", is_flag=True, help="Do not wait for running requests.")
@shared_options
def stop(call: Call, job_id: str, force: bool) -> int:
    """Drain the service, end its job, and say what could not be confirmed to be gone."""
    from qwen_fp8_ops.cli.job_stop import stop_job
    from qwen_fp8_ops.report.words import duration

    stopped = stop_job(job_id, call.say, force=force)
    text = f"Job {job_id} was {'stopped' if stopped.was_running else 'taken out of the queue'} in {duration(stopped.seconds)}" + (
        ": every process is gone, the ports are free." if stopped.was_running else "."
    )
    call.give({"schema": 1, "ok": True, "job_id": job_id, "was_running": stopped.was_running, "seconds": round(stopped.seconds, 1), "leftovers": []}, text)
    return ExitCode.DONE


@jobs.command(epilog="Examples:\n\n\b\n  qwen-fp8 jobs logs 4711\n  qwen-fp8 jobs logs 4711 -f --engine")
@click.argument("job_id")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written, until Ctrl+C.")
@click.option("-n", "--lines", "count", type=click.IntRange(0, 1_000_000), default=50, metavar="N", help="How many of the last lines; default 50.")
@click.option("--engine", is_flag=True, help="The engine's log, in place of what the job itself printed.")
@shared_options
def logs(call: Call, job_id: str, follow: bool, count: int, engine: bool) -> int:
    """Show what the job printed, or what its engine did."""
    from qwen_fp8_ops.cli.logs import existing, show
    from qwen_fp8_ops.report.job import known_job, run_of

    if follow and call.speak_json:
        raise click.UsageError("--follow does not go with --json.")
    paths = run_of(known_job(job_id))
    return show(call, existing(paths.service_log if engine else paths.job_log(job_id), None), follow=follow, count=count)
