"""``submit --caption`` and ``submit --qa``: a batch against a service, as a job without GPUs or an array of them."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from qwen_fp8_ops.cli.common import Call
from qwen_fp8_ops.errors import ExitCode, NotRunningError
from qwen_fp8_ops.outside.files import make_folder, write_text
from qwen_fp8_ops.slurm import parse
from qwen_fp8_ops.slurm.client_script import NOTICE_SECONDS, ClientJob, client_script
from qwen_fp8_ops.slurm.submit import refuse_folder, submit_script

if TYPE_CHECKING:
    from qwen_fp8_ops.config.settings import Settings


@dataclass(frozen=True)
class ClientRequest:
    """``verb`` is caption or qa, ``words`` are its own options."""

    verb: str
    words: tuple[str, ...]
    array: int | None
    job: str | None
    partition: str
    time: str
    cpus: int
    memory: str
    more: tuple[str, ...]


def submit_client(call: Call, request: ClientRequest, *, dry_run: bool) -> int:
    """
    Raises:
        OpsError: there is no service to ask; sbatch refuses it.
    """
    _check_words(request)
    job = _client_job(call, request)
    refuse_folder(job.home)
    refuse_folder(job.folder)
    merge = replace(job, words=_merge_words(job), shares=None, service_job=None, name=f"{job.name}-merge") if job.shares else None
    if dry_run:
        scripts = [client_script(job), *([client_script(replace(merge, after="JOB"))] if merge else [])]
        call.give({"schema": 1, "ok": True, "scripts": scripts}, "\n".join(scripts).removesuffix("\n"))
        return ExitCode.DONE
    job_id = _submit(call, job)
    merge_id = _submit(call, replace(merge, after=job_id)) if merge else None
    log = job.logs / f"{job.name}-{job_id}{'_*' if job.shares else ''}.log"
    text = (
        f"Submitted job {job_id}"
        + (f" ({job.shares} shares), and {merge_id}, which puts them together." if merge else ".")
        + f"\n  tail -f {log}\n  squeue --me"
    )
    call.give({"schema": 1, "ok": True, "job_id": job_id, "merge_job_id": merge_id, "log": str(log)}, text)
    return ExitCode.DONE


def _merge_words(job: ClientJob) -> tuple[str, ...]:
    """Those of the shares, but for what is about asking alone."""
    return (*(word for word in job.words if word != "--retry-failed"), "--merge")


def _submit(call: Call, job: ClientJob) -> str:
    make_folder(job.logs)
    make_folder(call.paths.run)
    script = call.paths.run / f"{job.name}.sbatch"
    write_text(script, client_script(job))
    return submit_script(script)


def _client_job(call: Call, request: ClientRequest) -> ClientJob:
    from qwen_fp8_ops.config.paths import PACKAGE

    settings = call.configuration().settings
    service_job = None
    words = [request.verb, *request.words]
    if not any(word.partition("=")[0] == "--server-url" for word in request.words):
        service_job = request.job or _service_job(call, settings)
        words += ["--job", service_job] if service_job else []
    checkout = PACKAGE.parent
    return ClientJob(
        name=f"{settings.slurm_job_name}-{request.verb}",
        python=sys.executable,
        words=tuple(words),
        home=call.paths.home,
        logs=call.paths.logs,
        folder=call.folder,
        checkout=checkout if (checkout / "start_service.sh").exists() else None,
        time=request.time,
        memory=request.memory,
        cpus=request.cpus,
        partition=request.partition,
        more=request.more,
        shares=request.array,
        service_job=service_job,
    )


def _service_job(call: Call, settings: Settings) -> str | None:
    """This folder's service in the queue; None when it runs without a job of ours.

    Raises:
        NotRunningError: there is none.
    """
    from qwen_fp8_ops.slurm.queue import our_jobs

    found = next((job for job in our_jobs(settings.slurm_job_name) if job.home == call.paths.home), None)
    if found:
        return found.job_id
    if not call.paths.endpoint.exists():
        raise NotRunningError(
            "There is no service to ask: none of this folder runs or waits in the queue", fix="qwen-fp8 submit\nOr name one: --job ID, --server-url URL"
        )
    return None


def _check_words(request: ClientRequest) -> None:
    """A mistake is told now, and not in a log tomorrow.

    Raises:
        UsageError: the verb would refuse them.
    """
    from qwen_fp8_ops.cli.verbs import command_of

    for word in request.words:
        if word.partition("=")[0] in ("--shard", "--merge"):
            raise click.UsageError(f"{word} is set for each job by --array N.")
        if word.partition("=")[0] == "--server-url" and request.job:
            raise click.UsageError("--server-url and --job both name a service; give one of them.")
    seconds = parse.seconds(request.time)
    if seconds is not None and seconds <= NOTICE_SECONDS:
        raise click.UsageError(f"--time {request.time} leaves no time to work: {NOTICE_SECONDS} s before its end the job is told to save what it has.")
    command = command_of(request.verb)
    with command.make_context(f"qwen-fp8 {request.verb}", list(request.words), obj=Call()):
        pass
