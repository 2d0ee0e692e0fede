"""The GPUs of this host as the driver tells them, through nvidia-ml-py.

One snapshot is many readings of one moment. A reading that a driver does not offer is None and costs only itself; a lost GPU is
marked and the others are still shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

CLOCKS_EVENTS: tuple[tuple[int, str], ...] = (
    (0x1, "idle"),
    (0x2, "application-clocks"),
    (0x4, "power-cap"),
    (0x8, "hw-slowdown"),
    (0x10, "sync-boost"),
    (0x20, "sw-thermal"),
    (0x40, "hw-thermal"),
    (0x80, "hw-power-brake"),
    (0x100, "display-clocks"),
)
"""nvmlClocksEventReason* in nvml.h: why the clocks are not higher than they are."""

PROBLEMS: dict[int, tuple[str, str]] = {
    9: ("driver-not-loaded", "Load it (root): modprobe nvidia; `dmesg | grep -i nvrm` says why it does not load."),
    12: ("nvml-missing", "Expected on a machine without NVIDIA GPUs; else install the driver, or put the folder of libnvidia-ml.so.1 on LD_LIBRARY_PATH."),
    18: (
        "driver-mismatch",
        "The driver was updated while it was loaded: reboot the node, or reload it (root) with nothing on the GPUs: rmmod nvidia_uvm nvidia; modprobe nvidia",
    ),
}
"""nvmlReturn_t of nvmlInit: our code for it, and what to do."""
OTHER_PROBLEM = ("nvml-failed", "See what `nvidia-smi` and `dmesg | grep -i nvrm` say.")


@dataclass(frozen=True)
class GpuProcess:
    """``pid`` is the host's: a container may not have it, or have another process of that number."""

    pid: int
    memory_bytes: int | None


@dataclass(frozen=True)
class Gpu:
    """Optional values are None when the driver does not tell. ``lost``: the driver lists it and cannot reach it any more.

    ``ecc_uncorrected`` counts since the driver was loaded. ``problems`` are the driver's words for readings that failed.
    As `nvidia-smi -q`; in one line each: `nvidia-smi --query-gpu=index,uuid,name,memory.total,memory.used --format=csv`."""

    index: int
    uuid: str | None = None
    name: str | None = None
    pci_bus_id: str | None = None
    compute_capability: str | None = None
    memory_total_bytes: int | None = None
    memory_reserved_bytes: int | None = None
    memory_used_bytes: int | None = None
    memory_free_bytes: int | None = None
    utilization_percent: int | None = None
    temperature_celsius: int | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    clocks_event_reasons: tuple[str, ...] | None = None
    ecc_uncorrected: int | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    mig_enabled: bool | None = None
    nvlinks_up: int | None = None
    nvlinks_down: int | None = None
    persistence: bool | None = None
    processes: tuple[GpuProcess, ...] = ()
    problems: tuple[str, ...] = ()
    lost: bool = False


@dataclass(frozen=True)
class GpuSnapshot:
    """``problem`` says why there are no GPUs to show, with a code and what to do; empty when the driver answered.

    ``source`` is "nvml", "nvidia-smi" or empty. ``cuda_version`` is the newest CUDA that the driver runs, such as "13.0"."""

    gpus: tuple[Gpu, ...] = field(default=())
    problem: str = ""
    problem_code: str = ""
    problem_fix: str = ""
    source: str = ""
    driver_version: str | None = None
    cuda_version: str | None = None


def snapshot() -> GpuSnapshot:
    """Never raises for what the driver does: a machine without one has no GPUs and a problem that says so."""
    try:
        import pynvml  # type: ignore[import-untyped]  # nvidia-ml-py has no type information
    except ImportError as error:
        return GpuSnapshot(
            problem=f"nvidia-ml-py cannot be used: {error}", problem_code="nvml-missing", problem_fix="Install it again: python3 scripts/setup_venv.py"
        )
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        code, fix = PROBLEMS.get(error.value, OTHER_PROBLEM)
        return GpuSnapshot(problem=f"no NVIDIA driver answers: {error}", problem_code=code, problem_fix=fix)
    try:
        system = _Asking(pynvml)
        driver, cuda = system.ask("nvmlSystemGetDriverVersion"), system.ask("nvmlSystemGetCudaDriverVersion_v2")
        gpus = tuple(_read(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount()))
        return GpuSnapshot(gpus, source="nvml", driver_version=driver, cuda_version=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None)
    except pynvml.NVMLError as error:
        code, fix = OTHER_PROBLEM
        return GpuSnapshot(problem=f"the NVIDIA driver does not list its GPUs: {error}", problem_code=code, problem_fix=fix)
    finally:
        pynvml.nvmlShutdown()


class _Asking:
    """Calls getters and keeps what went wrong; what is only not offered gives None and is no problem."""

    def __init__(self, nvml: Any, *handle: Any) -> None:
        self.nvml, self._handle = nvml, handle
        self._not_offered = (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NoPermission)
        self.problems: list[str] = []
        self.lost = False

    def ask(self, getter: str, *arguments: Any) -> Any:
        """The getter's answer; None when there is none, and for every getter once the GPU is lost: each could wait for it."""
        if self.lost:
            return None
        function: Callable[..., Any] | None = getattr(self.nvml, getter, None)  # an older nvidia-ml-py has fewer
        if function is None:
            return None
        try:
            return function(*self._handle, *arguments)
        except self._not_offered:
            return None
        except self.nvml.NVMLError as error:
            self.lost = isinstance(error, self.nvml.NVMLError_GpuIsLost)
            if str(error) not in self.problems:
                self.problems.append(str(error))
            return None


def _read(nvml: Any, index: int) -> Gpu:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError as error:
        return Gpu(index, problems=(str(error),), lost=True)
    asking = _Asking(nvml, handle)
    ask = asking.ask
    # The first call's record keeps what the driver reserves apart; the older one counts it as used.
    memory = ask("nvmlDeviceGetMemoryInfo", nvml.nvmlMemory_v2) or ask("nvmlDeviceGetMemoryInfo")
    load = ask("nvmlDeviceGetUtilizationRates")
    capability = ask("nvmlDeviceGetCudaComputeCapability")
    pci = ask("nvmlDeviceGetPciInfo")
    power, limit = ask("nvmlDeviceGetPowerUsage"), ask("nvmlDeviceGetEnforcedPowerLimit")
    events = ask("nvmlDeviceGetCurrentClocksEventReasons")
    if events is None:
        events = ask("nvmlDeviceGetCurrentClocksThrottleReasons")  # its name before driver 535
    remapped = ask("nvmlDeviceGetRemappedRows")  # corrected, uncorrected, pending, failed
    mig = ask("nvmlDeviceGetMigMode")
    persistence = ask("nvmlDeviceGetPersistenceMode")
    temperature = ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU)
    if temperature is None:
        temperature = ask("nvmlDeviceGetTemperatureV", nvml.NVML_TEMPERATURE_GPU)  # the other goes with CUDA 14
    links = _links(asking)
    return Gpu(
        index=index,
        uuid=ask("nvmlDeviceGetUUID"),
        name=ask("nvmlDeviceGetName"),
        pci_bus_id=pci.busId if pci else None,
        compute_capability=".".join(map(str, capability)) if capability else None,
        memory_total_bytes=memory.total if memory else None,
        memory_reserved_bytes=getattr(memory, "reserved", None),
        memory_used_bytes=memory.used if memory else None,
        memory_free_bytes=memory.free if memory else None,
        utilization_percent=load.gpu if load else None,
        temperature_celsius=temperature,
        power_watts=power / 1000 if power is not None else None,
        power_limit_watts=limit / 1000 if limit is not None else None,
        clocks_event_reasons=clocks_event_words(events) if events is not None else None,
        ecc_uncorrected=ask("nvmlDeviceGetTotalEccErrors", nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC),
        remap_pending=bool(remapped[2]) if remapped else None,
        remap_failed=bool(remapped[3]) if remapped else None,
        mig_enabled=bool(mig[0]) if mig else None,
        nvlinks_up=links.count(True) if links else None,
        nvlinks_down=links.count(False) if links else None,
        persistence=bool(persistence) if persistence is not None else None,
        processes=_processes(asking),
        problems=tuple(asking.problems),
        lost=asking.lost,
    )


def clocks_event_words(bits: int) -> tuple[str, ...]:
    return tuple(word for bit, word in CLOCKS_EVENTS if bits & bit)


def _links(asking: _Asking) -> list[bool]:
    """Up or down, for each NVLink of this GPU; empty when it has none or does not tell. As `nvidia-smi nvlink --status`."""
    nvml, found = asking.nvml, []
    count = asking.ask("nvmlDeviceGetFieldValues", [nvml.NVML_FI_DEV_NVLINK_LINK_COUNT])
    if not count or count[0].nvmlReturn != nvml.NVML_SUCCESS:
        return []
    for link in range(count[0].value.uiVal):
        up = asking.ask("nvmlDeviceGetNvLinkState", link)
        if up is not None:
            found.append(bool(up))
    return found


def _processes(asking: _Asking) -> tuple[GpuProcess, ...]:
    """Who holds memory. A process that computes and draws is in both lists with the same bytes; on MIG slices of one GPU it is in a list twice."""
    held: dict[int, int | None] = {}
    for kind in ("Compute", "MPSCompute", "Graphics"):
        listed = asking.ask(f"nvmlDeviceGet{kind}RunningProcesses_v3")
        if listed is None:
            listed = asking.ask(f"nvmlDeviceGet{kind}RunningProcesses_v2")  # of drivers before 510
        for pid, memory in _sums(listed or ()).items():
            known = held.get(pid)
            held[pid] = memory if known is None else max(known, memory or 0)
    return tuple(GpuProcess(pid, memory) for pid, memory in held.items())


def _sums(entries: Iterable[Any]) -> dict[int, int | None]:
    sums: dict[int, int | None] = {}
    for entry in entries:
        known = sums.get(entry.pid)
        sums[entry.pid] = known if entry.usedGpuMemory is None else entry.usedGpuMemory + (known or 0)
    return sums
