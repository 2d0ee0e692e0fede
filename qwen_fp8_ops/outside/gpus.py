"""The GPUs of this host, from whoever tells: NVML, else `nvidia-smi`, else the kernel and the PCI bus say at least what is there."""

from __future__ import annotations

from dataclasses import replace

from qwen_fp8_ops.outside import nvml
from qwen_fp8_ops.outside.nvml import GpuSnapshot


def snapshot() -> GpuSnapshot:
    """Never raises for what a driver does. ``source`` says who told; a problem comes with what the kernel knows of the driver.

    The code is "no-gpus" where nothing speaks of NVIDIA at all."""
    found = nvml.snapshot()
    if not found.problem:
        return found
    from qwen_fp8_ops.outside import driver, nvidia_smi  # what nobody needs where NVML answers costs nobody its import

    if nvidia_smi.installed():
        other = nvidia_smi.snapshot()
        if not other.problem:
            return other
    loaded, devices = driver.kernel_version(), driver.gpus_on_bus()
    if not loaded and not devices:
        return replace(found, problem_code="no-gpus") if found.problem_code == "nvml-missing" else found
    there = f"{devices} NVIDIA GPU{'s' if devices != 1 else ''} on the PCI bus, " + (f"kernel driver {loaded} loaded" if loaded else "no kernel driver loaded")
    return replace(found, problem=f"{found.problem} ({there})", driver_version=loaded)
