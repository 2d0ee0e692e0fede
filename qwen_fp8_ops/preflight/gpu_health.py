"""Are the GPUs well: reachable, memory without faults, clocks not held down, links up."""

from __future__ import annotations

from collections.abc import Iterator

from qwen_fp8_ops.preflight.check import check
from qwen_fp8_ops.preflight.finding import Finding
from qwen_fp8_ops.preflight.gpus import has_or_have, is_or_are, numbered
from qwen_fp8_ops.preflight.subject import Subject

GROUP = "GPUs"
HELD_DOWN = {"hw-slowdown": "hardware slowdown", "hw-thermal": "too hot", "sw-thermal": "too hot", "hw-power-brake": "power brake"}
"""Reasons that are not normal; a GPU at work is at its power cap, one without work is idle."""

ANOTHER_NODE = "Or end the job and ask for another node: add --exclude=$(hostname -s) to the salloc line, and tell the administrators."


@check(GROUP, {"gpu-lost": "no GPU has fallen off the bus"})
def check_lost_gpus(subject: Subject) -> Iterator[Finding]:
    """Too few that work is for ``gpu-count`` to tell; this one tells of a lost GPU beside enough others."""
    lost = [gpu for gpu in subject.visible_gpus if gpu.lost]
    if not lost or len(subject.gpus) < subject.settings.gpu_count:
        return
    rest = ",".join(str(gpu.index) for gpu in subject.gpus)
    seen = f"{numbered(lost)} {is_or_are(lost)} lost ({'; '.join(lost[0].problems)}); CUDA may refuse to start beside it"
    yield Finding("gpu-lost", "warn", seen, f"Leave it out: export CUDA_VISIBLE_DEVICES={rest}\nIt needs a reset or a reboot of the node (root).")


@check(
    GROUP,
    {
        "gpu-ecc": "no memory error that ECC could not correct since the driver was loaded",
        "gpu-remap-failed": "no bad memory row that could not be replaced",
        "gpu-remap-pending": "no bad memory row waits for a reset to be replaced",
        "gpu-slowdown": "heat or power do not hold the clocks down",
    },
)
def check_gpu_health(subject: Subject) -> Iterator[Finding]:
    gpus = subject.gpus
    if not gpus:
        return
    faulty = [gpu for gpu in gpus if gpu.ecc_uncorrected]
    if faulty:
        counts = ", ".join(f"{gpu.ecc_uncorrected} on GPU {gpu.index}" for gpu in faulty)
        fix = f"Reset it (root, nothing running on it): nvidia-smi --gpu-reset -i {faulty[0].index}\n{ANOTHER_NODE}"
        yield Finding("gpu-ecc", "warn", f"Memory errors that could not be corrected: {counts}", fix)
    elif any(gpu.ecc_uncorrected is not None for gpu in gpus):
        yield Finding("gpu-ecc", "pass", "no uncorrected memory error")
    failed, pending = [gpu for gpu in gpus if gpu.remap_failed], [gpu for gpu in gpus if gpu.remap_pending]
    if failed:
        yield Finding(
            "gpu-remap-failed",
            "fail",
            f"{numbered(failed)} {has_or_have(failed)} a bad memory row that cannot be replaced any more",
            f"The GPU must be exchanged.\n{ANOTHER_NODE}",
        )
    elif pending:
        fix = f"Reset it (root, nothing running on it): nvidia-smi --gpu-reset -i {pending[0].index}\n{ANOTHER_NODE}"
        yield Finding("gpu-remap-pending", "warn", f"{numbered(pending)} {has_or_have(pending)} a bad memory row that is replaced at the next reset", fix)
    held = [(gpu.index, sorted({HELD_DOWN[reason] for reason in gpu.clocks_event_reasons or () if reason in HELD_DOWN})) for gpu in gpus]
    if any(reasons for _, reasons in held):
        words = "; ".join(f"GPU {index}: {', '.join(reasons)}" for index, reasons in held if reasons)
        yield Finding(
            "gpu-slowdown",
            "warn",
            f"Clocks are held down: {words}",
            f"The slowest GPU sets the pace of all:\nnvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER\n{ANOTHER_NODE}",
        )


@check(GROUP, {"gpu-nvlink": "the NVLinks between the GPUs of one engine are up"})
def check_nvlink(subject: Subject) -> Iterator[Finding]:
    gpus = subject.gpus
    down = [gpu for gpu in gpus if gpu.nvlinks_down]
    if subject.settings.tensor_parallel_size < 2 or not any(gpu.nvlinks_up or gpu.nvlinks_down for gpu in gpus):
        return
    if not down:
        yield Finding("gpu-nvlink", "pass", f"{gpus[0].nvlinks_up} links up on each GPU")
    elif not any(gpu.nvlinks_up for gpu in gpus):
        fix = "On a board with NVSwitch: systemctl status nvidia-fabricmanager\nSeparate PCIe cards have none: then tensor parallelism goes over PCIe, and that is all."
        yield Finding("gpu-nvlink", "warn", "No NVLink is up on any GPU: without its fabric manager, an NVSwitch board starts no CUDA program", fix)
    else:
        counts = ", ".join(f"{gpu.nvlinks_down} of {gpu.nvlinks_down + (gpu.nvlinks_up or 0)} on GPU {gpu.index}" for gpu in down if gpu.nvlinks_down)
        yield Finding(
            "gpu-nvlink", "warn", f"NVLinks are down: {counts}", f"See `nvidia-smi nvlink --status`; a reset of the node may bring them back.\n{ANOTHER_NODE}"
        )
