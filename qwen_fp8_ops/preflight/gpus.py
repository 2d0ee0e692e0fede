"""Which GPUs there are: enough of them, of the kind that config.env names, and whole ones."""

from __future__ import annotations

from collections.abc import Iterator

from qwen_fp8_ops.outside.nvml import Gpu
from qwen_fp8_ops.preflight.check import check
from qwen_fp8_ops.preflight.finding import Finding
from qwen_fp8_ops.preflight.subject import VISIBLE, Subject
from qwen_fp8_ops.slurm.allocation import salloc_line

GROUP = "GPUs"
GIB = 1 << 30
NOMINAL_SHARE = 0.92
"""Of the size a vendor names, what the driver shows at least: 44.99 GiB of a 48 GB card with ECC."""


@check(GROUP, {"gpu-count": "the driver answers and shows GPU_COUNT working GPUs, within CUDA_VISIBLE_DEVICES"})
def check_gpus(subject: Subject) -> Iterator[Finding]:
    settings = subject.settings
    if settings.on_cpu:
        yield Finding("gpu-count", "pass", "no GPU needed (GPU_COUNT=0): the engine runs on the CPU")
        return
    found = subject.driver
    working = [gpu for gpu in subject.visible_gpus if not gpu.lost]
    if len(working) >= settings.gpu_count:
        yield Finding("gpu-count", "pass", f"{len(working)} GPUs")
        return
    reasons = [found.problem] if found.problem else [f"GPU {gpu.index}: {'; '.join(gpu.problems)}" for gpu in found.gpus if gpu.lost]
    if len(subject.visible_gpus) < len(found.gpus):
        chosen = subject.environ.get(VISIBLE)
        chooser = "the allocation" if chosen is None else f"{VISIBLE}={chosen}"
        reasons.append(f"{chooser} leaves {len(subject.visible_gpus)} of {len(found.gpus)}")
    reason = f" ({', '.join(reasons)})" if reasons else ""
    mending = "" if found.problem_code == "no-gpus" else found.problem_fix
    ways = [salloc_line(settings), "Or without a GPU: ./start_service.sh --profile demo", mending]
    yield Finding("gpu-count", "fail", f"Requested {settings.gpu_count} GPUs but only {len(working)} available{reason}", "\n".join(way for way in ways if way))


@check(GROUP, {"gpu-model": "every GPU's name contains GPU_NAME", "gpu-memory": "every GPU has GPU_MEMORY_GIB of memory"})
def check_gpu_kind(subject: Subject) -> Iterator[Finding]:
    settings, gpus = subject.settings, subject.gpus
    if not gpus:
        return
    others = [gpu for gpu in gpus if gpu.name and settings.gpu_name.lower() not in gpu.name.lower()]
    if others:
        fix = f"Ask for nodes with {settings.gpu_name} (`sinfo -o '%N %G'`), or, if these are meant, set GPU_NAME and GPU_MEMORY_GIB to what they are."
        yield Finding("gpu-model", "fail", f"GPU_NAME={settings.gpu_name}, but {numbered(others)} {is_or_are(others)} {others[0].name}", fix)
    else:
        yield Finding("gpu-model", "pass", f"{len(gpus)} x {gpus[0].name or '?'}")
    small = [gpu for gpu in gpus if gpu.memory_total_bytes and gpu.memory_total_bytes < settings.gpu_memory_gib * GIB * NOMINAL_SHARE]
    sizes = sorted({gpu.memory_total_bytes for gpu in small or gpus if gpu.memory_total_bytes})
    if small:
        seen = f"GPU_MEMORY_GIB={settings.gpu_memory_gib}, but {numbered(small)} {has_or_have(small)} {sizes[0] / GIB:.1f} GiB"
        yield Finding("gpu-memory", "fail", seen, "Ask for larger GPUs, or set GPU_MEMORY_GIB to what they have; `qwen-fp8 plan` tells whether the model fits.")
    elif sizes:
        yield Finding("gpu-memory", "pass", f"{sizes[0] / GIB:.1f} GiB each")
    else:
        yield Finding(
            "gpu-memory", "warn", "The driver does not tell how much memory the GPUs have", "See `nvidia-smi`; an engine that cannot ask either will not start."
        )


@check(GROUP, {"gpu-mig": "no GPU is cut into MIG slices, which an engine over several GPUs cannot use"})
def check_mig(subject: Subject) -> Iterator[Finding]:
    cut = [gpu for gpu in subject.gpus if gpu.mig_enabled]
    if cut:
        fix = "\n".join(f"nvidia-smi -i {gpu.index} -mig 0" for gpu in cut) + "\nThat needs root and an idle GPU; or ask for a node without MIG."
        yield Finding("gpu-mig", "fail", f"MIG is on for {numbered(cut)}: the engine would see slices and no whole GPU", fix)
    elif subject.gpus:
        yield Finding("gpu-mig", "pass", "MIG is off")


def numbered(gpus: list[Gpu]) -> str:
    """``GPU 3``, ``GPUs 0, 1 and 5``."""
    indexes = [str(gpu.index) for gpu in gpus]
    return f"GPU {indexes[0]}" if len(indexes) == 1 else f"GPUs {', '.join(indexes[:-1])} and {indexes[-1]}"


def is_or_are(gpus: list[Gpu]) -> str:
    return "is" if len(gpus) == 1 else "are"


def has_or_have(gpus: list[Gpu]) -> str:
    return "has" if len(gpus) == 1 else "have"
