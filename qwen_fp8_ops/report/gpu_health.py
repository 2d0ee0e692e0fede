"""What is wrong with a GPU, in words, and what is only worth knowing. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qwen_fp8_ops.outside.nvml import Gpu

HARDWARE_SLOWDOWN = {"hw-slowdown": "hardware slowdown", "hw-thermal": "too hot", "hw-power-brake": "power brake"}


@dataclass(frozen=True)
class GpuProblem:
    """``message`` does not name the GPU."""

    code: str
    message: str
    fix: str


def problems_of(gpu: Gpu) -> tuple[GpuProblem, ...]:
    """What makes a GPU one to take out of service: lost, ECC, row remapping, slowed down by its hardware, or a reading that failed."""
    return tuple(_problems(gpu))


def notes_of(gpu: Gpu) -> tuple[str, ...]:
    """What is no fault, and explains much: MIG, NVLinks that are down, clocks below what they could be."""
    return tuple(_notes(gpu))


def _problems(gpu: Gpu) -> Iterator[GpuProblem]:
    reset = f"With nothing running on it (root): nvidia-smi --gpu-reset -i {gpu.index}; else drain the node and reboot it."
    for message in gpu.problems:
        if gpu.lost:
            yield GpuProblem("gpu-lost", message, "Drain the node and reboot it; `dmesg | grep -i xid` tells what happened.")
        else:
            yield GpuProblem("gpu-reading", message, f"See `nvidia-smi -q -i {gpu.index}` and `dmesg | grep -i xid`.")
    if gpu.ecc_uncorrected:
        errors = f"{gpu.ecc_uncorrected} uncorrected ECC error{'s' if gpu.ecc_uncorrected > 1 else ''} since the driver was loaded"
        yield GpuProblem("gpu-ecc", errors, f"What ran on it may have computed nonsense or died: restart the service. {reset}")
    if gpu.remap_failed:
        yield GpuProblem(
            "gpu-remap-failed", "a bad memory row cannot be remapped any more", "The GPU has to be replaced; leave it out with CUDA_VISIBLE_DEVICES."
        )
    if gpu.remap_pending:
        yield GpuProblem("gpu-remap-pending", "a bad memory row waits for a reset to be remapped", reset)
    slowed = [words for reason, words in HARDWARE_SLOWDOWN.items() if reason in (gpu.clocks_event_reasons or ())]
    if slowed:
        yield GpuProblem(
            "gpu-slowdown",
            f"slowed down by its hardware: {', '.join(slowed)}",
            f"Look at cooling and power of the node: nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER -i {gpu.index}",
        )


def _notes(gpu: Gpu) -> Iterator[str]:
    if gpu.mig_enabled:
        yield "MIG is on"
    if gpu.nvlinks_down:
        yield f"{gpu.nvlinks_down} of {gpu.nvlinks_down + (gpu.nvlinks_up or 0)} NVLinks down"
    reasons = gpu.clocks_event_reasons or ()
    if "sw-thermal" in reasons:
        yield "clocks lowered for heat"
    if "power-cap" in reasons:
        yield "at its power cap"
