"""Which of a host's GPUs are ours to use: what CUDA_VISIBLE_DEVICES leaves, or what SLURM granted. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from qwen_fp8_ops.outside.nvml import Gpu

GRANTED = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
"""The GPUs of the step or the job, as the node counts them; the step's are the fewer."""


def visible(environ: Mapping[str, str], gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """Those a program with this environment would use, in the order in which CUDA would count them.

    CUDA's indexes are taken for the driver's, as they are among GPUs of one kind, or with CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        # Under SLURM this is right with and without device constraint: it counts what the job can see.
        return tuple(_chosen(chosen, gpus))
    granted = next((indexes for name in GRANTED if (indexes := _indexes(environ.get(name, "")))), None)
    # With ConstrainDevices the driver shows only what was granted, counted from 0: then all of it is ours.
    if granted is None or len(gpus) <= len(granted):
        return tuple(gpus)
    return tuple(gpu for gpu in gpus if gpu.index in granted)


def _chosen(text: str, gpus: Sequence[Gpu]) -> Iterator[Gpu]:
    """CUDA reads the list up to the first word that names nothing ("-1", "NoDevFiles"), and refuses a GPU named twice."""
    seen: set[int] = set()
    for word in text.split(","):
        found = _named(word.strip(), gpus)
        if not found:
            return
        yield from (gpu for gpu in found if gpu.index not in seen)
        seen |= {gpu.index for gpu in found}


def _named(word: str, gpus: Sequence[Gpu]) -> list[Gpu]:
    if word.isdecimal():
        return [gpu for gpu in gpus if gpu.index == int(word)]
    if word.startswith("MIG-GPU-"):  # the older form names its GPU: MIG-GPU-UUID/instance/instance
        return [gpu for gpu in gpus if gpu.uuid == word.removeprefix("MIG-").partition("/")[0]]
    if word.startswith("MIG-"):
        return [gpu for gpu in gpus if gpu.mig_enabled]  # the driver would have to be asked which of them it lies on
    if not word.startswith("GPU-"):
        return []
    found = [gpu for gpu in gpus if gpu.uuid and gpu.uuid.lower().startswith(word.lower())]
    return found if len(found) == 1 else []  # the beginning of a UUID will do as long as it is one GPU's


def _indexes(text: str) -> set[int] | None:
    """``0,1,4-7``; None when it is empty or has another form, such as the names of MIG slices."""
    found: set[int] = set()
    for word in text.split(",") if text else ():
        first, _, last = word.strip().partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            return None
        found |= set(range(int(first), int(last or first) + 1))
    return found or None
