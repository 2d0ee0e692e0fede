"""The same snapshot as ``outside.nvml`` from the `nvidia-smi` command: for when the Python binding or the loader's path is broken.

It is an NVML client itself, so a driver that is not loaded or does not match answers it no better. It tells nothing of NVLinks here,
nor which CUDA the driver runs.
"""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from qwen_fp8_ops.outside.nvml import OTHER_PROBLEM, PROBLEMS, Gpu, GpuProcess, GpuSnapshot, clocks_event_words

COMMAND = "nvidia-smi"
TIMEOUT_SECONDS = 30
"""With eight GPUs and no persistence mode the driver wakes each of them first."""
MIB = 1 << 20

GPU_FIELDS = (
    "index",
    "uuid",
    "name",
    "pci.bus_id",
    "compute_cap",
    "memory.total",
    "memory.reserved",
    "memory.used",
    "memory.free",
    "utilization.gpu",
    "temperature.gpu",
    "power.draw",
    "enforced.power.limit",
    "clocks_event_reasons.active",
    "ecc.errors.uncorrected.volatile.total",
    "mig.mode.current",
    "persistence_mode",
    "driver_version",
)
OLD_NAMES = {"clocks_event_reasons.active": "clocks_throttle_reasons.active"}
"""What fields were called before driver 535."""
PROCESS_FIELDS = ("gpu_uuid", "pid", "used_memory")
ROW_FIELDS = ("gpu_uuid", "remapped_rows.pending", "remapped_rows.failure")

UNTOLD = ("", "n/a", "not supported", "not available", "insufficient permissions", "requires root", "not found")
LOST = "gpu is lost"
REFUSED_FIELD = re.compile(r'Field "([^"]+)" is not a valid field')
INFOROM = re.compile(r"infoROM is corrupted at gpu ([0-9A-Fa-f:.]+)")

Row = Mapping[str, str]


@dataclass(frozen=True)
class _Answer:
    """``output`` is all that was printed: errors too go to stdout."""

    returncode: int
    output: str
    rows: tuple[Row, ...] = ()


def installed() -> bool:
    return shutil.which(COMMAND) is not None


def snapshot() -> GpuSnapshot:
    """Never raises for what the command does. An exit code other than 0 does not mean that there is nothing to read: 14 (a corrupted
    infoROM) comes with all rows."""
    if not installed():
        return GpuSnapshot(problem=f"{COMMAND} is not on PATH", problem_code="nvidia-smi-missing")
    try:
        answer = _query("gpu", GPU_FIELDS)
        if not answer.rows:
            return _failed(answer)
        processes = _query("compute-apps", PROCESS_FIELDS).rows
        remapped = {row["gpu_uuid"]: row for row in _query("remapped-rows", ROW_FIELDS).rows}
    except subprocess.TimeoutExpired:
        return GpuSnapshot(
            problem=f"{COMMAND} gave no answer in {TIMEOUT_SECONDS} s",
            problem_code="nvidia-smi-hangs",
            problem_fix="The driver hangs: see `dmesg | grep -i nvrm`; it needs a reboot of the node.",
        )
    except OSError as error:
        return GpuSnapshot(problem=f"{COMMAND} cannot be run: {error.strerror}", problem_code="nvidia-smi-failed")
    corrupted = {_bus(found) for found in INFOROM.findall(answer.output)}
    gpus = tuple(_gpu(index, row, processes, remapped.get(row.get("uuid", ""), {}), corrupted) for index, row in enumerate(answer.rows))
    driver = next((text for row in answer.rows if (text := _text(row.get("driver_version", "")))), None)
    return GpuSnapshot(gpus, source=COMMAND, driver_version=driver)


def _query(what: str, fields: Sequence[str]) -> _Answer:
    """
    Raises:
        subprocess.TimeoutExpired: no answer in time.
        OSError: it cannot be run.
    """
    names = {field: field for field in fields}
    while True:
        argv = [COMMAND, f"--query-{what}={','.join(names.values())}", "--format=csv,noheader,nounits"]
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_SECONDS, stdin=subprocess.DEVNULL, check=False)
        output = done.stdout + done.stderr
        refused = REFUSED_FIELD.search(output)
        asked = next((field for field, name in names.items() if refused and name == refused[1]), None)
        if asked is None:
            return _Answer(done.returncode, output, tuple(_rows(done.stdout, list(names))))
        # An older one refuses the whole query for one field that it does not have.
        if names[asked] == asked and asked in OLD_NAMES:
            names[asked] = OLD_NAMES[asked]
        else:
            del names[asked]


def _rows(output: str, names: list[str]) -> list[Row]:
    """The lines that have a cell for each field; beside them stand warnings."""
    cells = csv.reader(output.splitlines(), skipinitialspace=True)
    return [dict(zip(names, line, strict=True)) for line in cells if len(line) == len(names)]


def _failed(answer: _Answer) -> GpuSnapshot:
    said = next((line.strip() for line in answer.output.splitlines() if line.strip()), "it says nothing")
    code, fix = PROBLEMS.get(answer.returncode, OTHER_PROBLEM)  # its exit codes are NVML's
    return GpuSnapshot(problem=f"{COMMAND} shows no GPU (exit code {answer.returncode}): {said}", problem_code=code, problem_fix=fix)


def _gpu(place: int, row: Row, processes: Sequence[Row], remapped: Row, corrupted: set[str]) -> Gpu:
    index = _number(row.get("index", ""))
    problems = [problem for cell in row.values() if (problem := _problem(cell))]
    if (bus := _text(row.get("pci.bus_id", ""))) and _bus(bus) in corrupted:
        problems.append("infoROM is corrupted")
    events = _text(row.get("clocks_event_reasons.active", ""))
    found = Gpu(
        index=int(index) if index is not None else place,
        uuid=_text(row.get("uuid", "")),
        name=_text(row.get("name", "")),
        pci_bus_id=bus,
        compute_capability=_text(row.get("compute_cap", "")),
        memory_total_bytes=_bytes(row.get("memory.total", "")),
        memory_reserved_bytes=_bytes(row.get("memory.reserved", "")),
        memory_used_bytes=_bytes(row.get("memory.used", "")),
        memory_free_bytes=_bytes(row.get("memory.free", "")),
        utilization_percent=_whole(row.get("utilization.gpu", "")),
        temperature_celsius=_whole(row.get("temperature.gpu", "")),
        power_watts=_number(row.get("power.draw", "")),
        power_limit_watts=_number(row.get("enforced.power.limit", "")),
        clocks_event_reasons=clocks_event_words(int(events, 16)) if events and re.fullmatch(r"0x[0-9a-fA-F]+", events) else None,
        ecc_uncorrected=_whole(row.get("ecc.errors.uncorrected.volatile.total", "")),
        remap_pending=_yes(remapped.get("remapped_rows.pending", "")),
        remap_failed=_yes(remapped.get("remapped_rows.failure", "")),
        mig_enabled=_yes(row.get("mig.mode.current", "")),
        persistence=_yes(row.get("persistence_mode", "")),
        problems=tuple(dict.fromkeys(problems)),
        lost=any(_inside(cell) == LOST for cell in row.values()),
    )
    return replace(found, processes=tuple(_process(one) for one in processes if one["gpu_uuid"] == found.uuid and one["pid"].isdecimal()))


def _process(row: Row) -> GpuProcess:
    return GpuProcess(int(row["pid"]), _bytes(row["used_memory"]))


def _inside(cell: str) -> str:
    return cell.strip().strip("[]").lower()


def _problem(cell: str) -> str | None:
    """What a cell in brackets complains of; nothing when the value is only not offered."""
    text = cell.strip()
    return text.strip("[]") if text.startswith("[") and _inside(text) not in UNTOLD else None


def _text(cell: str) -> str | None:
    text = cell.strip()
    return None if text.startswith("[") or text.lower() in UNTOLD else text


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _whole(cell: str) -> int | None:
    number = _number(cell)
    return None if number is None else int(number)


def _bytes(cell: str) -> int | None:
    mib = _number(cell)
    return None if mib is None else int(mib * MIB)


def _yes(cell: str) -> bool | None:
    return {"yes": True, "no": False, "enabled": True, "disabled": False, "1": True, "0": False}.get(_inside(cell))


def _bus(text: str) -> str:
    """A PCI address without its domain's leading zeros: 0000:3B:00.0 and 00000000:3B:00.0 are one."""
    return text.lower().lstrip("0").rstrip(".")
