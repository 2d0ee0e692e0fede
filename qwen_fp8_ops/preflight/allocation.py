"""The SLURM allocation: are we in one, is it as large as config.env asks for, and does it last longer than the load."""

from __future__ import annotations

from collections.abc import Iterator

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside.files import read_json
from qwen_fp8_ops.preflight.check import check
from qwen_fp8_ops.preflight.finding import Finding
from qwen_fp8_ops.preflight.subject import Subject
from qwen_fp8_ops.slurm.allocation import salloc_line

GROUP = "SLURM"
GIB = 1 << 30
COLD_BYTES_PER_SECOND = 512 << 20
"""Of weights from a parallel file system that does not have them in memory: 0.26 to 0.7 GiB/s were measured (transformers PR 48227)."""

BEYOND_WEIGHTS_SECONDS = 180
"""Engine start, compilation, graphs and warm-up, where no earlier start tells."""

USEFUL_LOADS = 3
"""An allocation that ends sooner than after so many load times serves for less time than it takes to load, twice over."""


@check(GROUP, {"slurm-allocation": "we are on the node of an allocation, where REQUIRE_SLURM asks for one"})
def check_allocation(subject: Subject) -> Iterator[Finding]:
    settings, job = subject.settings, subject.allocation
    if job is None:
        if subject.wants_allocation:
            yield Finding("slurm-allocation", "fail", "Not inside a SLURM allocation", f"{salloc_line(settings)}\nOr set REQUIRE_SLURM=off.")
    elif not job.on_node:
        seen = f"Job {job.job_id} has {job.node or 'another node'}, and this shell is not on it"
        yield Finding("slurm-allocation", "fail" if subject.wants_allocation else "warn", seen, f"srun --jobid={job.job_id} --pty bash")
    elif job.problem:
        yield Finding(
            "slurm-allocation",
            "warn",
            f"Inside job {job.job_id}, and SLURM does not tell more: {job.problem}",
            "The end of the job is not known then; see `scontrol ping`.",
        )
    else:
        yield Finding("slurm-allocation", "pass", f"inside job {job.job_id}" + (f" on {job.node}" if job.node else ""))


@check(GROUP, {"slurm-gpus": "the allocation has GPU_COUNT GPUs", "slurm-memory": "it has SLURM_MEM of memory", "slurm-cpus": "it has SLURM_CPUS CPUs"})
def check_granted(subject: Subject) -> Iterator[Finding]:
    job, settings = subject.allocation, subject.settings
    if job is None:
        return
    again = salloc_line(settings)
    if job.gpus is not None and settings.gpu_count:
        seen = f"job {job.job_id} has {job.gpus} GPUs"
        if job.gpus < settings.gpu_count:
            yield Finding(
                "slurm-gpus",
                "fail",
                f"{_sentence(seen)}, GPU_COUNT={settings.gpu_count}",
                f"{again}\nOr use what there is: GPU_COUNT and TENSOR_PARALLEL_SIZE.",
            )
        else:
            yield Finding("slurm-gpus", "pass", seen)
    wanted = size_bytes(settings.slurm_mem)
    if job.memory_bytes is not None and not settings.on_cpu:
        seen = f"job {job.job_id} has {job.memory_bytes / GIB:.0f} GiB of host memory"
        if job.memory_bytes < wanted:
            yield Finding(
                "slurm-memory",
                "warn",
                f"{_sentence(seen)}, SLURM_MEM={settings.slurm_mem}: loading may be ended for want of memory",
                f"{again}\nOr set SLURM_MEM to what is enough.",
            )
        else:
            yield Finding("slurm-memory", "pass", seen)
    if job.cpus is not None and not settings.on_cpu:
        seen = f"job {job.job_id} has {job.cpus} CPUs"
        if job.cpus < settings.slurm_cpus:
            yield Finding(
                "slurm-cpus",
                "warn",
                f"{_sentence(seen)}, SLURM_CPUS={settings.slurm_cpus}: images are prepared more slowly",
                f"{again}\nOr set SLURM_CPUS to what is enough.",
            )
        else:
            yield Finding("slurm-cpus", "pass", seen)


def size_bytes(text: str) -> int:
    """Of a size as SLURM takes it: 320G, 300000 (MiB)."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
    return int(text.rstrip("KMGT")) * units[text[-1] if text[-1] in units else "M"]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


@check(GROUP, {"slurm-time": "the allocation lasts longer than the model takes to load"})
def check_time(subject: Subject) -> Iterator[Finding]:
    job = subject.allocation
    if job is None or job.seconds_left is None:
        return
    left = job.seconds_left
    load, source = _load_seconds(subject)
    seen = f"{_minutes(left)} are left of job {job.job_id}; loading takes {_minutes(load)} ({source})"
    fix = f"Ask for more time:\n{salloc_line(subject.settings)}\nOr, where the site allows it:\nscontrol update JobId={job.job_id} TimeLimit=..."
    if left < load:
        yield Finding("slurm-time", "fail", seen, fix)
    else:
        yield Finding("slurm-time", "warn" if left < USEFUL_LOADS * load else "pass", seen, fix if left < USEFUL_LOADS * load else "")


def _load_seconds(subject: Subject) -> tuple[float, str]:
    """How long the last start of this model took here, else an estimate by its size."""
    try:
        times = read_json(subject.paths.load_times)
    except OpsError:
        times = None  # only an estimate hangs on it
    known = times if isinstance(times, dict) else {}
    # The supervisor names a start by the model's folder, then by how it is split.
    begins = f"{subject.plan.model_path} tp{subject.settings.tensor_parallel_size}"
    seconds = [value for name, value in known.items() if name in (begins, f"{begins} eager") and isinstance(value, (int, float))]
    if seconds:
        return max(seconds), "as measured"
    return subject.weight_bytes / COLD_BYTES_PER_SECOND + BEYOND_WEIGHTS_SECONDS, "estimated"


def _minutes(seconds: float) -> str:
    return f"{max(0, round(seconds))} s" if seconds < 120 else f"{seconds / 60:.0f} min"
