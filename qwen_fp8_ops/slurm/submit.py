"""Batch jobs are given to SLURM here, and told to end."""

from __future__ import annotations

import os
import re
from pathlib import Path

from qwen_fp8_ops.errors import ConfigError, OpsError
from qwen_fp8_ops.outside import slurm
from qwen_fp8_ops.outside.files import make_folder, write_text
from qwen_fp8_ops.slurm import parse
from qwen_fp8_ops.slurm.ask import ask, refusal
from qwen_fp8_ops.slurm.script import Submission, notice_seconds, sbatch_script

JOB_ID = re.compile(r"\d+(_\d+)?")


def refuse_impossible(job: Submission) -> None:
    """What sbatch would take, and nobody could use.

    Raises:
        ConfigError: it says what to change.
    """
    refuse_folder(job.paths.home)
    seconds, notice = parse.seconds(job.settings.slurm_time), notice_seconds(job.settings)
    if seconds is not None and seconds <= notice:
        raise ConfigError(
            f"SLURM_TIME={job.settings.slurm_time} leaves no time to serve: {notice} s before its end the service stops admitting requests",
            fix="Ask for more (SLURM_TIME=24:00:00), or set DRAIN_TIMEOUT lower.",
        )


def refuse_folder(folder: Path) -> None:
    """
    Raises:
        ConfigError: SLURM cannot work with a folder of this name.
    """
    name = str(folder)
    if "\\" in name or "\n" in name:
        raise ConfigError(
            f"SLURM can write no log into {name!r}", fix="Choose a folder without a backslash or a line break in its name: QWEN_FP8_HOME=/other/folder"
        )


def submit_script(script: Path) -> str:
    """Submit a script as it is; returns the job's id.

    Raises:
        OpsError: sbatch refuses it or does not answer.
    """
    return _sbatch([str(script)])


def submit(job: Submission) -> str:
    """Write the script into the run's folder and submit it; returns the job's id.

    Raises:
        OpsError: sbatch refuses it or does not answer.
    """
    refuse_impossible(job)
    make_folder(job.paths.run)
    make_folder(job.paths.logs)  # SLURM does not make it, and a job that cannot write its log fails without a word
    write_text(job.paths.job_script, sbatch_script(job))
    return _sbatch([str(job.paths.job_script)])


def chain(script: Path, job_id: str) -> str:
    """Submit the same script again, to start when ``job_id`` has ended, however it ends; returns the new job's id.

    Raises:
        OpsError: sbatch refuses it or does not answer.
    """
    return _sbatch([f"--dependency=afterany:{job_id}", str(script)])


def requeue(job_id: str) -> None:
    """SLURM ends the job, this process among it, and starts it again as soon as there is a node for it.

    Raises:
        OpsError: the controller refuses it or does not answer.
    """
    ask(["scontrol", "requeue", job_id])


def ask_to_stop(job_id: str) -> None:
    """Ctrl+C for the batch script alone: it drains in its own time. After scancel's own SIGTERM there would be KillWait seconds.

    Raises:
        OpsError: the controller refuses it or does not answer.
    """
    ask(["scancel", "--batch", "--signal=INT", job_id])


def cancel(job_id: str) -> None:
    """SIGTERM now, SIGKILL KillWait seconds later; a pending job is gone at once.

    Raises:
        OpsError: the controller refuses it or does not answer.
    """
    ask(["scancel", job_id])


def _sbatch(words: list[str]) -> str:
    # From inside a job, what describes that job must not describe the next one.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_") or name == "SLURM_CONF"}
    reply = slurm.run(["sbatch", "--parsable", *words], environ=environ)
    if not reply.ok:
        raise refusal("sbatch", reply)
    job_id = reply.stdout.strip().partition(";")[0]  # ID or ID;CLUSTER
    if not JOB_ID.fullmatch(job_id):
        raise OpsError(f"sbatch told no job id: {reply.stdout.strip()[:200]!r}", code="slurm-refused", fix="squeue --me   shows whether it was submitted.")
    return job_id
