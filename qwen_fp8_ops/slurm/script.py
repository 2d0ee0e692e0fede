"""The batch script of a service. Pure: settings in, text out; it needs nothing of the shell it is submitted from.

The script ends in ``exec``: SLURM signals the batch shell, and a shell that waits for a child would not pass the signal on, nor
outlive it (a batch shell without a trap dies of SIGTERM at once, and its children are killed with it).
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.config.settings import Settings

OURS = "qwen-fp8:"
"""A job's comment that begins so is a service of ours; the rest is its run's folder."""
END_SECONDS = 60
"""What a stop takes after the drain, at most, with time to spare: the programs' own time limits and the proof that they are gone."""


@dataclass(frozen=True)
class Submission:
    """``arguments`` are the global options (--config, --profile, --set) that make ``settings`` out of the files."""

    settings: Settings
    paths: RunPaths
    python: str
    checkout: Path | None
    arguments: tuple[str, ...]


def notice_seconds(settings: Settings) -> int:
    """How long before the end of the allocation a service stops admitting requests."""
    return settings.drain_timeout + END_SECONDS


def sbatch_script(job: Submission) -> str:
    start = shlex.join([job.python, "-P", "-m", "qwen_fp8_ops", *job.arguments, "start"])
    environment = {"QWEN_FP8_HOME": str(job.paths.home)}
    if job.checkout:
        environment["PYTHONPATH"] = str(job.checkout)
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {word}" for word in map(quoted, job_options(job.settings, job.paths))),
        "",
        "# shellcheck disable=SC2016 # a $ in a path is a $",
        "set -euo pipefail",
        "trap '' USR1 # until the supervisor listens; it knows the end of the wall time by itself",
        *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
        f"exec {start}",
    ]
    return "\n".join(lines) + "\n"


def job_options(settings: Settings, paths: RunPaths) -> list[str]:
    """What sbatch is asked for, one option each; the site's own (SLURM_EXTRA_ARGS) come last and win."""
    again = settings.slurm_at_end in ("requeue", "chain")
    options = [
        f"--job-name={settings.slurm_job_name}",
        f"--comment={OURS}{paths.home}",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={settings.slurm_cpus}",
        f"--mem={settings.slurm_mem}",
        f"--time={settings.slurm_time}",
        f"--signal=B:USR1@{notice_seconds(settings)}",
        f"--chdir={paths.home}",
        f"--output={literal(paths.logs)}/slurm-%j.log",
        "--open-mode=append",  # a requeued job goes on with its log
        "--requeue" if again else "--no-requeue",
    ]
    if settings.slurm_partition:
        options.append(f"--partition={settings.slurm_partition}")
    if settings.gpu_count:
        options.append(f"--gres=gpu:{settings.gpu_count}")
    return [*options, *settings.slurm_extra_args]


def literal(path: Path) -> str:
    """A path in a file name pattern, where ``%`` begins a pattern."""
    return str(path).replace("%", "%%")


def quoted(option: str) -> str:
    """One option on a #SBATCH line. sbatch splits it by rules like a shell's, but minds a backslash within single quotes too."""
    plain = shlex.quote(option) == option or not set("'\\") & set(option)
    return shlex.quote(option) if plain else '"' + option.replace("\\", "\\\\").replace('"', '\\"') + '"'
