"""The GPUs of this host as the driver tells them, through nvidia-ml-py.

One snapshot is many readings of one moment. A reading that a driver does not offer is None and costs only itself; a lost GPU is
marked and the others are still shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class GpuProcess:
    pid: int
    memory_bytes: int | None


@dataclass(frozen=True)
class Gpu:
    """``lost``: the driver lists it and cannot reach it any more.

    As `nvidia-smi --query-gpu=index,uuid,name,memory.total,memory.used,memory.free,utilization.gpu,temperature.gpu,power.draw`."""

    index: int
    uuid: str | None = None
    name: str | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    memory_free_bytes: int | None = None
    utilization_percent: int | None = None
    temperature_celsius: int | None = None
    power_watts: float | None = None
    processes: tuple[GpuProcess, ...] = ()
    problems: tuple[str, ...] = ()
    lost: bool = False


@dataclass(frozen=True)
class GpuSnapshot:
    """``problem`` says why there are no GPUs to show; empty when the driver answered."""

    gpus: tuple[Gpu, ...] = field(default=())
    problem: str = ""


def snapshot() -> GpuSnapshot:
    """Never raises for what the driver does: a machine without one has no GPUs and a problem that says so."""
    import pynvml  # type: ignore[import-untyped]  # nvidia-ml-py has no type information

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return GpuSnapshot(problem=f"no NVIDIA driver answers: {error}")
    try:
        return GpuSnapshot(tuple(_read(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())))
    except pynvml.NVMLError as error:
        return GpuSnapshot(problem=f"the NVIDIA driver does not list its GPUs: {error}")
    finally:
        pynvml.nvmlShutdown()


def _read(nvml: Any, index: int) -> Gpu:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError as error:
        return Gpu(index, problems=(str(error),), lost=True)
    problems: list[str] = []
    lost = False

    def ask(getter: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal lost
        try:
            return getter(handle, *arguments)
        except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
            return None  # this GPU, or an older driver, does not tell
        except nvml.NVMLError as error:
            lost = lost or isinstance(error, nvml.NVMLError_GpuIsLost)
            if str(error) not in problems:
                problems.append(str(error))
            return None

    memory = ask(nvml.nvmlDeviceGetMemoryInfo, nvml.nvmlMemory_v2) or ask(nvml.nvmlDeviceGetMemoryInfo)
    load = ask(nvml.nvmlDeviceGetUtilizationRates)
    power = ask(nvml.nvmlDeviceGetPowerUsage)
    running = ask(nvml.nvmlDeviceGetComputeRunningProcesses) or []
    return Gpu(
        index=index,
        uuid=ask(nvml.nvmlDeviceGetUUID),
        name=ask(nvml.nvmlDeviceGetName),
        memory_total_bytes=memory.total if memory else None,
        memory_used_bytes=memory.used if memory else None,
        memory_free_bytes=memory.free if memory else None,
        utilization_percent=load.gpu if load else None,
        temperature_celsius=ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
        power_watts=power / 1000 if power is not None else None,
        processes=tuple(GpuProcess(entry.pid, entry.usedGpuMemory) for entry in running),
        problems=tuple(problems),
        lost=lost,
    )
