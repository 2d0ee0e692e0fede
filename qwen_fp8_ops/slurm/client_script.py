"""The batch script of a caption or QA job: no GPU, requests to a service that runs as another job. Pure: text out.

It ends in ``exec``, as the script of a service does, so that SLURM's signals reach the client and not a shell.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from qwen_fp8_ops.slurm.script import literal, quoted

NOTICE_SECONDS = 120
"""How long before the end of its time a client is told to finish what is on its way."""


@dataclass(frozen=True)
class ClientJob:
    """
    Args:
        name: of the job; also names its log, in ``logs``.
        words: of our command line, without the program.
        folder: where it runs; relative paths among ``words`` begin there.
        time, memory, cpus, partition, more: what sbatch is asked for; ``more`` are whole options.
        shares: so many jobs of an array do one share each.
        service_job: it begins when this job has begun.
        after: it begins when this job, all shares of it, has ended, however it did.
    """

    name: str
    python: str
    words: tuple[str, ...]
    home: Path
    logs: Path
    folder: Path
    checkout: Path | None = None
    time: str = "2-00:00:00"
    memory: str = "16G"
    cpus: int = 8
    partition: str = ""
    more: tuple[str, ...] = ()
    shares: int | None = None
    service_job: str | None = None
    after: str | None = None


def client_script(job: ClientJob) -> str:
    command = shlex.join([job.python, "-P", "-m", "qwen_fp8_ops", *job.words])
    if job.shares:
        command += f' --shard "$SLURM_ARRAY_TASK_ID"/{job.shares}'
    environment = {"QWEN_FP8_HOME": str(job.home)} | ({"PYTHONPATH": str(job.checkout)} if job.checkout else {})
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {word}" for word in map(quoted, _options(job))),
        "",
        "# shellcheck disable=SC2016 # a $ in a path is a $",
        "set -euo pipefail",
        *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
        f"exec {command}",
    ]
    return "\n".join(lines) + "\n"


def _options(job: ClientJob) -> list[str]:
    options = [
        f"--job-name={job.name}",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={job.cpus}",
        f"--mem={job.memory}",
        f"--time={job.time}",
        f"--signal=B:TERM@{NOTICE_SECONDS}",
        f"--chdir={job.folder}",
        f"--output={literal(job.logs)}/{job.name}-{'%A_%a' if job.shares else '%j'}.log",
    ]
    if job.partition:
        options.append(f"--partition={job.partition}")
    if job.shares:
        options.append(f"--array=1-{job.shares}")
    waits = [f"after:{job.service_job}"] if job.service_job else []
    waits += [f"afterany:{job.after}"] if job.after else []
    if waits:
        options.append(f"--dependency={','.join(waits)}")
    return [*options, *job.more]
