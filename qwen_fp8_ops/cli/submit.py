"""``submit``: the service as a batch job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qwen_fp8_ops.cli.common import Call, shared_options
from qwen_fp8_ops.errors import ExitCode, OpsError

if TYPE_CHECKING:
    from qwen_fp8_ops.config.load import Configuration
    from qwen_fp8_ops.slurm.script import Submission


@click.command(
    context_settings={"ignore_unknown_options": True},  # those of caption and qa
    epilog="Examples:\n\n\b\n  qwen-fp8 submit --dry-run\n  qwen-fp8 submit --wait\n  qwen-fp8 submit --chain --set SLURM_TIME=12:00:00\n"
    "  QWEN_FP8_HOME=$HOME/second qwen-fp8 submit --profile h100x4 --set PORT=auto --set MEDIA_PORT=auto\n"
    "  qwen-fp8 submit --caption --partition cpu --dataset-path images --prompt-style SHORT\n"
    "  qwen-fp8 submit --qa --array 4 --job 4711 --question-path Q.parquet --dataset-path images",
)
@click.option("--dry-run", is_flag=True, help="Print the batch script and submit nothing.")
@click.option("--wait", is_flag=True, help="Follow the job until the service is ready, and say how to reach it. Ctrl+C leaves the job alone.")
@click.option("--requeue", "at_end", flag_value="requeue", help="When the wall time runs out, have SLURM start the job again (SLURM_AT_END=requeue).")
@click.option("--chain", "at_end", flag_value="chain", help="When the wall time runs out, submit a new job that starts then (SLURM_AT_END=chain).")
@click.option("--caption", "client", flag_value="caption", help="Submit a caption job against the service; its options follow.")
@click.option("--qa", "client", flag_value="qa", help="Submit a QA job against the service; its options follow.")
@click.option("--array", type=click.IntRange(1, 100_000), metavar="N", help="With --caption, --qa: N shares, each a job, and one that puts them together.")
@click.option("--job", metavar="ID", help="With --caption, --qa: ask the service of this job; default: this folder's.")
@click.option("--partition", default="", metavar="NAME", help="With --caption, --qa: default is the cluster's.")
@click.option("--time", default="2-00:00:00", show_default=True, metavar="TIME", help="With --caption, --qa.")
@click.option("--cpus", type=click.IntRange(1), default=8, show_default=True, metavar="N", help="With --caption, --qa.")
@click.option("--mem", "memory", default="16G", show_default=True, metavar="SIZE", help="With --caption, --qa.")
@click.option("--sbatch", "more", multiple=True, metavar="OPTION", help="With --caption, --qa: one more option for sbatch, such as --sbatch=--account=physics.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF CAPTION OR QA]")
@shared_options
def submit(call: Call, dry_run: bool, wait: bool, at_end: str | None, client: str | None, words: tuple[str, ...], **asked: Any) -> int:
    """Submit the service to SLURM as a batch job of the size that config.env asks for (the SLURM_ keys).

    With --caption or --qa: a job without GPUs that asks a running or waiting service.
    """
    from qwen_fp8_ops.cli.follow import follow
    from qwen_fp8_ops.slurm.script import sbatch_script
    from qwen_fp8_ops.slurm.submit import refuse_impossible
    from qwen_fp8_ops.slurm.submit import submit as submit_job

    if client:
        from qwen_fp8_ops.cli.submit_client import ClientRequest, submit_client

        if wait or at_end:
            raise click.UsageError("--wait, --requeue and --chain are for the service.")
        return submit_client(call, ClientRequest(client, words, **asked), dry_run=dry_run)
    _refuse_strangers(words, asked)
    if at_end:
        call.overrides = [*call.overrides, f"SLURM_AT_END={at_end}"]
    job = _submission(call, call.configuration())
    if dry_run:
        refuse_impossible(job)
        script = sbatch_script(job)
        call.give({"schema": 1, "ok": True, "script": script}, script.removesuffix("\n"))
        return ExitCode.DONE
    _refuse_second(job)
    job_id = submit_job(job)
    if wait:
        call.say(f"Submitted job {job_id}.")
        return follow(call, job_id)
    value = {"schema": 1, "ok": True, "job_id": job_id, "script": str(call.paths.job_script), "log": str(call.paths.job_log(job_id))}
    call.give(value, f"Submitted job {job_id}.\n  qwen-fp8 status --job {job_id}\n  qwen-fp8 jobs logs {job_id} -f\n  qwen-fp8 jobs stop {job_id}")
    return ExitCode.DONE


def _refuse_strangers(words: tuple[str, ...], asked: dict[str, Any]) -> None:
    """
    Raises:
        UsageError: what only a caption or QA job knows was given for the service.
    """
    if words:
        what = "option" if words[0].startswith("-") else "argument"
        raise click.UsageError(f"No such {what}: {words[0]}. Options of caption and qa go with --caption and --qa.")
    context = click.get_current_context()
    for name in asked:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            shown = {"memory": "mem", "more": "sbatch"}.get(name, name)
            raise click.UsageError(f"--{shown} goes with --caption or --qa; the service's job is sized by the SLURM_ keys of config.env.")


def _submission(call: Call, configuration: Configuration) -> Submission:
    """The job must come to the same settings whatever its environment is: what came from ours is named."""
    from qwen_fp8_ops.config.load import PREFIX
    from qwen_fp8_ops.config.paths import PACKAGE
    from qwen_fp8_ops.slurm.script import Submission

    words = ["--config", str(configuration.config_file.resolve())] if configuration.config_file else []
    words += [word for name in configuration.profiles for word in ("--profile", name)]
    for key, source in configuration.sources.items():
        if source.origin == "--set" or source.origin.startswith(PREFIX):
            words += ["--set", f"{key}={source.text}"]
    checkout = PACKAGE.parent
    return Submission(configuration.settings, call.paths, sys.executable, checkout if (checkout / "start_service.sh").exists() else None, tuple(words))


def _refuse_second(job: Submission) -> None:
    """
    Raises:
        OpsError: a job of ours has this run's folder already; the second would only find it locked.
    """
    from qwen_fp8_ops.slurm.queue import our_jobs

    home = job.paths.home
    other = next((found for found in our_jobs(job.settings.slurm_job_name) if found.home and Path(found.home) == home), None)
    if other:
        raise OpsError(
            f"Job {other.job_id} ({other.state}) has the folder {home} already",
            code="already-submitted",
            fix=f"qwen-fp8 status --job {other.job_id}\nOr a folder of its own for the second service: QWEN_FP8_HOME=/other/folder qwen-fp8 submit",
        )
