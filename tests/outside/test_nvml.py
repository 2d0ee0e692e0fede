"""GPUs as a driver tells them, with a library of our own in the driver's place. It is found by its name, so all happens in child processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fake_nvml.fake import FakeDriver, build, compiler

MIB = 1 << 20
TOTAL = 81_559 * MIB
SNAPSHOT = "from dataclasses import asdict; from qwen_fp8_ops.outside import nvml; answer = asdict(nvml.snapshot())"


def test_a_snapshot_of_eight_healthy_gpus(fake_driver: FakeDriver) -> None:
    found = fake_driver.ask(SNAPSHOT, "count=8 used=0:70000 proc=0:4711:69000")
    assert {key: value for key, value in found.items() if key != "gpus"} == {
        "problem": "",
        "problem_code": "",
        "problem_fix": "",
        "source": "nvml",
        "driver_version": "580.95.05",
        "cuda_version": "13.0",
    }
    assert found["gpus"][0] == {
        "index": 0,
        "uuid": "GPU-000000a0-0000-0000-0000-000000000000",
        "name": "NVIDIA H100 80GB HBM3",
        "pci_bus_id": "00000000:18:00.0",
        "compute_capability": "9.0",
        "memory_total_bytes": TOTAL,
        "memory_reserved_bytes": 479 * MIB,
        "memory_used_bytes": 70_000 * MIB,
        "memory_free_bytes": (81_559 - 479 - 70_000) * MIB,
        "utilization_percent": 37,
        "temperature_celsius": 41,
        "power_watts": 123.45,
        "power_limit_watts": 700.0,
        "clocks_event_reasons": [],
        "ecc_uncorrected": 0,
        "remap_pending": False,
        "remap_failed": False,
        "mig_enabled": False,
        "nvlinks_up": 18,
        "nvlinks_down": 0,
        "persistence": True,
        "processes": [{"pid": 4711, "memory_bytes": 69_000 * MIB}],
        "problems": [],
        "lost": False,
    }
    assert [gpu["index"] for gpu in found["gpus"]] == list(range(8))
    assert found["gpus"][7]["processes"] == []


@pytest.mark.parametrize("word", ["lost", "gone"])
def test_a_lost_gpu_costs_itself_and_no_other(fake_driver: FakeDriver, word: str) -> None:
    gpus = fake_driver.ask(SNAPSHOT, f"count=8 {word}=3")["gpus"]
    assert [gpu["lost"] for gpu in gpus] == [index == 3 for index in range(8)]
    assert (gpus[3]["problems"], gpus[3]["memory_total_bytes"]) == (["GPU is lost"], None)
    assert gpus[4]["memory_total_bytes"] == TOTAL


READINGS = {
    "Name": ["name"],
    "UUID": ["uuid"],
    "Pci": ["pci_bus_id"],
    "ComputeCapability": ["compute_capability"],
    "Utilization": ["utilization_percent"],
    "Temperature": ["temperature_celsius"],
    "Power": ["power_watts"],
    "PowerLimit": ["power_limit_watts"],
    "Ecc": ["ecc_uncorrected"],
    "RemappedRows": ["remap_pending", "remap_failed"],
    "Mig": ["mig_enabled"],
    "FieldValues": ["nvlinks_up", "nvlinks_down"],
    "NvLinkState": ["nvlinks_up", "nvlinks_down"],
    "Persistence": ["persistence"],
}


@pytest.mark.parametrize(("getter", "keys"), READINGS.items())
@pytest.mark.parametrize("code", [3, 4])
def test_what_a_gpu_does_not_tell_is_none_and_no_problem(fake_driver: FakeDriver, getter: str, keys: list[str], code: int) -> None:
    one, other = fake_driver.ask(SNAPSHOT, f"count=2 fail=0:{getter}:{code}")["gpus"]
    assert ([name for name, value in one.items() if value is None], one["problems"], one["lost"]) == (keys, [], False)
    assert None not in other.values()


def test_a_reading_that_fails_is_a_problem_and_the_others_are_there(fake_driver: FakeDriver) -> None:
    (gpu,) = fake_driver.ask(SNAPSHOT, "count=1 fail=Power:999 fail=Temperature:999")["gpus"]
    assert (gpu["power_watts"], gpu["problems"], gpu["lost"], gpu["memory_total_bytes"]) == (None, ["Unknown Error"], False, TOTAL)


def test_a_gpu_that_is_lost_while_it_is_read_is_not_asked_on(fake_driver: FakeDriver) -> None:
    (gpu,) = fake_driver.ask(SNAPSHOT, "count=1 fail=Utilization:15")["gpus"]
    assert (gpu["lost"], gpu["memory_total_bytes"], gpu["temperature_celsius"], gpu["problems"]) == (True, TOTAL, None, ["GPU is lost"])


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        ("ecc=2", "ecc_uncorrected", 2),
        ("remap=pending", "remap_pending", True),
        ("remap=failed", "remap_failed", True),
        ("mig=1", "mig_enabled", True),
        ("persistence=0", "persistence", False),
        ("down=3", "nvlinks_down", 3),
        ("down=3", "nvlinks_up", 15),
        ("links=0", "nvlinks_up", None),
        ("events=0x1", "clocks_event_reasons", ["idle"]),
        ("events=0xe8", "clocks_event_reasons", ["hw-slowdown", "sw-thermal", "hw-thermal", "hw-power-brake"]),
        ("events=0x4 no=ClocksEventReasons", "clocks_event_reasons", ["power-cap"]),
        ("no=ClocksEventReasons no=ClocksThrottleReasons", "clocks_event_reasons", None),
    ],
)
def test_how_a_gpu_does(fake_driver: FakeDriver, words: str, key: str, value: object) -> None:
    (gpu,) = fake_driver.ask(SNAPSHOT, f"count=1 {words}")["gpus"]
    assert (gpu[key], gpu["problems"]) == (value, [])


def processes(driver: FakeDriver, words: str) -> list[tuple[int, int | None]]:
    (gpu,) = driver.ask(SNAPSHOT, f"count=1 {words}")["gpus"]
    return [(one["pid"], one["memory_bytes"]) for one in gpu["processes"]]


def test_processes_that_compute_draw_or_share_are_each_told_once(fake_driver: FakeDriver) -> None:
    assert processes(fake_driver, "proc=0:1:100 draw=0:1:100 draw=0:2:30 mps=0:3:7") == [(1, 100 * MIB), (3, 7 * MIB), (2, 30 * MIB)]
    assert processes(fake_driver, "proc=0:1:100 proc=0:1:50 proc=0:2:?") == [(1, 150 * MIB), (2, None)]  # on two MIG slices; untold


@pytest.fixture(scope="module")
def old_driver(tmp_path_factory: pytest.TempPathFactory) -> FakeDriver:
    if compiler() is None:
        pytest.skip("needs a C compiler")
    newer: Sequence[str] = (
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetGraphicsRunningProcesses_v3",
        "nvmlDeviceGetMPSComputeRunningProcesses_v3",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetRemappedRows",
        "nvmlDeviceGetTemperatureV",
    )
    return build(tmp_path_factory.mktemp("old"), without=newer)


def test_an_older_driver_is_asked_the_older_way(old_driver: FakeDriver) -> None:
    found = old_driver.ask(SNAPSHOT, "count=1 driver=470.256.02 cuda=11040 used=1000 proc=0:4711:900 events=0x40")
    gpu: dict[str, Any] = found["gpus"][0]
    assert (found["driver_version"], found["cuda_version"]) == ("470.256.02", "11.4")
    assert (gpu["memory_total_bytes"], gpu["memory_used_bytes"], gpu["memory_reserved_bytes"]) == (TOTAL, 1479 * MIB, None)  # it counts the reserved part
    assert (gpu["processes"], gpu["clocks_event_reasons"], gpu["temperature_celsius"]) == ([{"pid": 4711, "memory_bytes": 900 * MIB}], ["hw-thermal"], 41)
    assert (gpu["remap_pending"], gpu["problems"], gpu["lost"]) == (None, [], False)


def test_a_newer_driver_without_the_old_thermometer(tmp_path: Path) -> None:
    if compiler() is None:
        pytest.skip("needs a C compiler")
    (gpu,) = build(tmp_path, without=["nvmlDeviceGetTemperature"]).ask(SNAPSHOT, "count=1 temperature=66")["gpus"]
    assert (gpu["temperature_celsius"], gpu["problems"]) == (66, [])


def test_memory_that_no_call_tells_is_none(fake_driver: FakeDriver) -> None:
    gpu = fake_driver.ask(SNAPSHOT, "count=1 no=MemoryInfo_v2 no=MemoryInfo no=Processes")["gpus"][0]
    assert (gpu["memory_total_bytes"], gpu["memory_used_bytes"], gpu["processes"], gpu["problems"]) == (None, None, [], [])


@pytest.mark.parametrize(
    ("code", "name", "words", "fix"),
    [
        (9, "driver-not-loaded", "Driver Not Loaded", "modprobe nvidia"),
        (12, "nvml-missing", "NVML Shared Library Not Found", "libnvidia-ml.so.1"),
        (18, "driver-mismatch", "RM has detected an NVML/RM version mismatch.", "reboot"),
        (999, "nvml-failed", "Unknown Error", "dmesg"),
    ],
)
def test_a_driver_that_does_not_answer_is_a_problem_and_no_crash(fake_driver: FakeDriver, code: int, name: str, words: str, fix: str) -> None:
    found = fake_driver.ask(SNAPSHOT, f"init={code}")
    assert (found["gpus"], found["source"], found["problem_code"], found["problem"]) == ([], "", name, f"no NVIDIA driver answers: {words}")
    assert fix in found["problem_fix"]


def test_gpus_that_cannot_be_counted_are_a_problem(fake_driver: FakeDriver) -> None:
    found = fake_driver.ask(SNAPSHOT, "list=999")
    assert (found["gpus"], found["problem_code"], found["problem"]) == ([], "nvml-failed", "the NVIDIA driver does not list its GPUs: Unknown Error")


def test_without_the_library_the_problem_says_so(fake_driver: FakeDriver, tmp_path: Path) -> None:
    found = fake_driver.ask(SNAPSHOT, "count=8", LD_LIBRARY_PATH=str(tmp_path))
    if found["source"]:
        pytest.skip("this machine has a driver of its own")
    assert (found["problem_code"], found["gpus"]) == ("nvml-missing", [])
