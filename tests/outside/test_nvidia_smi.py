"""The snapshot from `nvidia-smi`: a script on PATH that answers as releases of the command did."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.outside import driver, gpus, nvidia_smi
from qwen_fp8_ops.outside.nvml import GpuProcess, GpuSnapshot

MIB = 1 << 20
UUIDS = [f"GPU-{index:08x}-1111-2222-3333-444444444444" for index in range(3)]
CELLS = {
    "index": "{0}",
    "uuid": "GPU-{0:08x}-1111-2222-3333-444444444444",
    "name": "NVIDIA H100 80GB HBM3",
    "pci.bus_id": "00000000:{0:02X}:00.0",
    "compute_cap": "9.0",
    "memory.total": "81559",
    "memory.reserved": "479",
    "memory.used": "70000",
    "memory.free": "11080",
    "utilization.gpu": "37",
    "temperature.gpu": "41",
    "power.draw": "123.45",
    "enforced.power.limit": "700.00",
    "clocks_event_reasons.active": "0x0000000000000048",
    "ecc.errors.uncorrected.volatile.total": "0",
    "mig.mode.current": "Disabled",
    "persistence_mode": "Enabled",
    "driver_version": "580.95.05",
}

SCRIPT = """#!/bin/sh
for word; do
  case $word in
    --query-gpu=*) what=gpu fields=${word#*=} ;;
    --query-compute-apps=*) what=compute-apps fields=${word#*=} ;;
    --query-remapped-rows=*) what=remapped-rows fields=${word#*=} ;;
  esac
done
cd "$(dirname "$0")" || exit 1
for field in $(cat "refused" 2>/dev/null); do
  case ",$fields," in *,"$field",*) echo "Field \\"$field\\" is not a valid field to query."; exit 2 ;; esac
done
echo "$what $fields" >> asked
cat "$what" 2>/dev/null
exit "$(cat "$what.rc" 2>/dev/null || echo 0)"
"""


class Smi:
    """What the command will answer, by query."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        script = folder / "nvidia-smi"
        script.write_text(SCRIPT)
        script.chmod(0o755)
        self.gpus(CELLS, CELLS)
        self.answer("compute-apps", f"{UUIDS[0]}, 4711, 69000\n{UUIDS[1]}, 4712, [N/A]\n")
        self.answer("remapped-rows", f"{UUIDS[0]}, Yes, No\n{UUIDS[1]}, 0, 1\n")

    def answer(self, what: str, text: str, code: int = 0) -> None:
        (self.folder / what).write_text(text)
        (self.folder / f"{what}.rc").write_text(str(code))

    def gpus(self, *rows: dict[str, str], code: int = 0, before: str = "") -> None:
        self.answer("gpu", before + "".join(", ".join(row.values()).format(index) + "\n" for index, row in enumerate(rows)), code)

    def refuse(self, *fields: str) -> None:
        (self.folder / "refused").write_text(" ".join(fields))

    @property
    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().splitlines()


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Smi:
    folder = tmp_path / "bin"
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return Smi(folder)


def test_the_same_snapshot_as_from_nvml(smi: Smi) -> None:
    found = nvidia_smi.snapshot()
    assert (found.source, found.driver_version, found.cuda_version, found.problem, len(found.gpus)) == ("nvidia-smi", "580.95.05", None, "", 2)
    gpu = found.gpus[0]
    assert (gpu.index, gpu.uuid, gpu.name, gpu.pci_bus_id, gpu.compute_capability) == (0, UUIDS[0], "NVIDIA H100 80GB HBM3", "00000000:00:00.0", "9.0")
    memory = (gpu.memory_total_bytes, gpu.memory_reserved_bytes, gpu.memory_used_bytes, gpu.memory_free_bytes)
    assert memory == (81_559 * MIB, 479 * MIB, 70_000 * MIB, 11_080 * MIB)
    assert (gpu.utilization_percent, gpu.temperature_celsius, gpu.power_watts, gpu.power_limit_watts) == (37, 41, 123.45, 700.0)
    assert (gpu.clocks_event_reasons, gpu.ecc_uncorrected, gpu.mig_enabled, gpu.persistence) == (("hw-slowdown", "hw-thermal"), 0, False, True)
    assert (gpu.remap_pending, gpu.remap_failed, gpu.nvlinks_up, gpu.problems, gpu.lost) == (True, False, None, (), False)
    assert gpu.processes == (GpuProcess(4711, 69_000 * MIB),)
    assert (found.gpus[1].processes, found.gpus[1].remap_failed) == ((GpuProcess(4712, None),), True)


@pytest.mark.parametrize("cell", ["[N/A]", "N/A", "[Not Supported]", "[Insufficient Permissions]"])
def test_a_cell_without_a_value_is_none_and_no_problem(smi: Smi, cell: str) -> None:
    smi.gpus({key: "{0}" if key == "index" else cell for key in CELLS})
    (gpu,) = nvidia_smi.snapshot().gpus
    assert (gpu.index, gpu.uuid, gpu.memory_total_bytes, gpu.power_watts, gpu.clocks_event_reasons, gpu.mig_enabled, gpu.problems, gpu.lost) == (
        *(0, None, None, None, None, None),
        (),
        False,
    )


def test_a_lost_gpu_is_marked_and_the_others_are_told(smi: Smi) -> None:
    smi.gpus(CELLS, {key: value if key == "index" else "[GPU is lost]" for key, value in CELLS.items()}, CELLS, code=15)
    found = nvidia_smi.snapshot()
    assert [(gpu.index, gpu.lost, gpu.problems) for gpu in found.gpus] == [(0, False, ()), (1, True, ("GPU is lost",)), (2, False, ())]
    assert found.gpus[2].memory_used_bytes == 70_000 * MIB


def test_a_cell_that_complains_is_a_problem(smi: Smi) -> None:
    smi.gpus({**CELLS, "power.draw": "[Unknown Error]", "temperature.gpu": "[Unknown Error]"})
    (gpu,) = nvidia_smi.snapshot().gpus
    assert (gpu.problems, gpu.lost, gpu.power_watts) == (("Unknown Error",), False, None)


def test_a_corrupted_inforom_ends_with_14_and_still_tells_everything(smi: Smi) -> None:
    smi.gpus(CELLS, CELLS, code=14, before="WARNING: infoROM is corrupted at gpu 0000:01:00.0\n")
    found = nvidia_smi.snapshot()
    assert (found.problem, [gpu.problems for gpu in found.gpus]) == ("", [(), ("infoROM is corrupted",)])
    assert found.gpus[1].memory_used_bytes == 70_000 * MIB


def test_fields_of_an_older_release_go_by_their_old_names_or_are_left_out(smi: Smi) -> None:
    smi.refuse("clocks_event_reasons.active", "memory.reserved", "compute_cap")
    smi.gpus({key: value for key, value in CELLS.items() if key not in ("memory.reserved", "compute_cap")})
    (gpu,) = nvidia_smi.snapshot().gpus
    assert (gpu.clocks_event_reasons, gpu.memory_reserved_bytes, gpu.compute_capability) == (("hw-slowdown", "hw-thermal"), None, None)
    assert (gpu.memory_used_bytes, gpu.memory_free_bytes) == (70_000 * MIB, 11_080 * MIB)
    assert "clocks_throttle_reasons.active" in smi.asked[0]


def test_a_release_without_remapped_rows_costs_only_those(smi: Smi) -> None:
    smi.answer("remapped-rows", "Option --query-remapped-rows is not recognized.\n", 1)
    gpu = nvidia_smi.snapshot().gpus[0]
    assert (gpu.remap_pending, gpu.remap_failed, gpu.problems, gpu.memory_used_bytes) == (None, None, (), 70_000 * MIB)


@pytest.mark.parametrize(
    ("code", "said", "name"),
    [
        (9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "driver-not-loaded"),
        (18, "Failed to initialize NVML: Driver/library version mismatch", "driver-mismatch"),
        (255, "", "nvml-failed"),
    ],
)
def test_a_command_that_shows_no_gpu_says_why(smi: Smi, code: int, said: str, name: str) -> None:
    smi.answer("gpu", f"{said}\n", code)
    found = nvidia_smi.snapshot()
    assert (found.gpus, found.source, found.problem_code) == ((), "", name)
    assert found.problem == f"nvidia-smi shows no GPU (exit code {code}): {said or 'it says nothing'}"
    assert found.problem_fix


def test_a_command_that_hangs_is_given_up(smi: Smi, monkeypatch: pytest.MonkeyPatch) -> None:
    (smi.folder / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 600\n")
    monkeypatch.setattr(nvidia_smi, "TIMEOUT_SECONDS", 0.5)
    found = nvidia_smi.snapshot()
    assert (found.problem_code, found.problem) == ("nvidia-smi-hangs", "nvidia-smi gave no answer in 0.5 s")


def test_a_command_that_cannot_be_run_is_a_problem(smi: Smi) -> None:
    (smi.folder / "nvidia-smi").write_text("#!/nowhere/sh\n")
    assert nvidia_smi.snapshot().problem == "nvidia-smi cannot be run: No such file or directory"


# Who is asked: tests of outside.gpus.


@pytest.fixture
def no_nvml(monkeypatch: pytest.MonkeyPatch) -> GpuSnapshot:
    failed = GpuSnapshot(problem="no NVIDIA driver answers: NVML Shared Library Not Found", problem_code="nvml-missing", problem_fix="install it")
    monkeypatch.setattr(gpus.nvml, "snapshot", lambda: failed)
    monkeypatch.setattr(driver, "VERSION", Path("/nowhere"))
    monkeypatch.setattr(driver, "PCI_DEVICES", Path("/nowhere"))
    return failed


def test_the_command_answers_where_the_library_does_not(smi: Smi, no_nvml: GpuSnapshot) -> None:
    found = gpus.snapshot()
    assert (found.source, len(found.gpus), found.problem) == ("nvidia-smi", 2, "")


def test_the_librarys_problem_is_told_when_the_command_knows_no_better(smi: Smi, no_nvml: GpuSnapshot) -> None:
    smi.answer("gpu", "Failed to initialize NVML: Unknown Error\n", 255)
    assert gpus.snapshot() == replace(no_nvml, problem_code="no-gpus")


def test_what_nobody_tells_the_kernel_and_the_bus_do(tmp_path: Path, no_nvml: GpuSnapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has nvidia-smi")
    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\nGCC version:  gcc version 12\n")
    monkeypatch.setattr(driver, "VERSION", version)
    assert gpus.snapshot().problem == f"{no_nvml.problem} (0 NVIDIA GPUs on the PCI bus, kernel driver 535.183.01 loaded)"
    assert gpus.snapshot().driver_version == "535.183.01"


def device(folder: Path, name: str, vendor: str, pci_class: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "vendor").write_text(f"{vendor}\n")
    (folder / name / "class").write_text(f"{pci_class}\n")


def test_gpus_are_counted_on_the_bus_and_switches_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device(tmp_path, "0000:18:00.0", "0x10de", "0x030200")
    device(tmp_path, "0000:2a:00.0", "0x10de", "0x030000")
    device(tmp_path, "0000:05:00.0", "0x10de", "0x068000")  # an NVSwitch
    device(tmp_path, "0000:06:00.0", "0x8086", "0x030000")  # another vendor's
    (tmp_path / "0000:07:00.0").mkdir()
    monkeypatch.setattr(driver, "PCI_DEVICES", tmp_path)
    assert driver.gpus_on_bus() == 2


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n", "535.183.01"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder@U22)\nGCC version: gcc 13\n", "580.95.05"),
        ("", None),
        ("GCC version: 12.3.0 \n", None),
    ],
)
def test_the_kernels_word_for_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, version: str | None) -> None:
    (tmp_path / "version").write_text(text)
    monkeypatch.setattr(driver, "VERSION", tmp_path / "version")
    assert driver.kernel_version() == version


def test_gpus_without_any_driver_are_told_of(tmp_path: Path, no_nvml: GpuSnapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has nvidia-smi")
    device(tmp_path, "0000:18:00.0", "0x10de", "0x030200")
    monkeypatch.setattr(driver, "PCI_DEVICES", tmp_path)
    found: Any = gpus.snapshot()
    assert (found.problem, found.problem_code) == (f"{no_nvml.problem} (1 NVIDIA GPU on the PCI bus, no kernel driver loaded)", "nvml-missing")
