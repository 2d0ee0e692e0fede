"""Other programs that read the same driver say the same: gpustat and nvitop before the stand-in, and all of us before a real GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.outside import gpus, nvidia_smi
from tests.fake_nvml.fake import REPOSITORY, FakeDriver

MIB = 1 << 20
NVITOP = """
import json
from nvitop import Device
answer = [(one.index, one.memory_used(), one.memory_total(), sorted((pid, process.gpu_memory()) for pid, process in one.processes().items())) for one in Device.all()]
"""

Row = tuple[int, int, int, list[tuple[int, int]]]
"""Index, used and total MiB, processes with their MiB."""


def ours(environ: dict[str, str]) -> list[Row]:
    command = [sys.executable, "-m", "qwen_fp8_ops", "gpus", "--json"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
    rows = json.loads(done.stdout)["gpus"]
    return [
        _row(gpu["index"], gpu["memory_used_bytes"], gpu["memory_total_bytes"], [(one["pid"], one["memory_bytes"]) for one in gpu["processes"]]) for gpu in rows
    ]


def nvitops(driver: FakeDriver, words: str) -> list[Row]:
    return [_row(*row) for row in driver.ask(NVITOP, words)]


def gpustats(environ: dict[str, str]) -> list[Row]:
    done = subprocess.run([sys.executable, "-m", "gpustat", "--json"], env=environ, capture_output=True, text=True, timeout=120, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)["gpus"]
    return [(gpu["index"], gpu["memory.used"], gpu["memory.total"], sorted((one["pid"], one["gpu_memory_usage"]) for one in gpu["processes"])) for gpu in found]


def _row(index: int, used: int, total: int, processes: Sequence[tuple[int, int]]) -> Row:
    return index, used // MIB, total // MIB, sorted((pid, size // MIB) for pid, size in processes)


def needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


def eight(pid: int) -> str:
    return f"count=8 used=0:70000 proc=0:{pid}:60000 proc=0:{os.getppid()}:1000 proc=3:{pid}:2048 used=5:12345 total=6:143771 proc=6:{pid}:140000"


def test_gpustat_agrees(fake_driver: FakeDriver) -> None:
    needs("gpustat")
    fake_driver.show(eight(os.getpid()))
    environ = fake_driver.whole_environ()
    found = ours(environ)
    assert gpustats(environ) == found
    assert found[0] == (0, 70_000, 81_559, sorted([(os.getpid(), 60_000), (os.getppid(), 1000)]))
    assert found[6][2] == 143_771


def test_nvitop_agrees(fake_driver: FakeDriver) -> None:
    needs("nvitop")
    found = nvitops(fake_driver, eight(os.getpid()))
    assert found == ours(fake_driver.whole_environ())
    assert len(found) == 8


# --- a real NVIDIA GPU --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_driver() -> None:
    found = gpus.snapshot()
    if found.source != "nvml" or not found.gpus:
        pytest.skip(f"needs an NVIDIA GPU: {found.problem or 'the driver shows none'}")


@pytest.mark.usefixtures("real_driver")
def test_a_real_gpu_tells_what_it_is() -> None:
    found = gpus.snapshot()
    assert re.fullmatch(r"\d+(\.\d+)+", found.driver_version or "")
    assert re.fullmatch(r"\d+\.\d", found.cuda_version or "")
    for gpu in found.gpus:
        assert (gpu.lost, gpu.problems) == (False, ())
        assert gpu.uuid
        assert gpu.uuid.startswith("GPU-")
        assert gpu.name
        assert re.fullmatch(r"[0-9A-Fa-f]{8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.0", gpu.pci_bus_id or "")
        assert re.fullmatch(r"\d+\.\d", gpu.compute_capability or "")
        assert gpu.memory_total_bytes
        assert gpu.memory_used_bytes is not None
        assert gpu.memory_free_bytes is not None
        assert gpu.memory_reserved_bytes is not None
        parts = gpu.memory_used_bytes + gpu.memory_free_bytes + gpu.memory_reserved_bytes
        assert abs(parts - gpu.memory_total_bytes) < 64 * MIB


@pytest.mark.usefixtures("real_driver")
def test_nvidia_smi_tells_of_a_real_gpu_what_nvml_does() -> None:
    if shutil.which("nvidia-smi") is None:
        pytest.skip("needs nvidia-smi")
    one, other = gpus.snapshot(), nvidia_smi.snapshot()
    assert (other.problem, other.driver_version, len(other.gpus)) == ("", one.driver_version, len(one.gpus))
    for here, there in zip(one.gpus, other.gpus, strict=True):
        fixed = ("index", "uuid", "name", "compute_capability", "ecc_uncorrected", "remap_pending", "remap_failed", "mig_enabled", "persistence", "lost")
        assert {key: getattr(here, key) for key in fixed} == {key: getattr(there, key) for key in fixed}
        assert here.memory_total_bytes
        assert there.memory_total_bytes
        assert abs(here.memory_total_bytes - there.memory_total_bytes) <= MIB
        assert (here.pci_bus_id or "").lower() == (there.pci_bus_id or "").lower()
        assert (here.power_limit_watts or 0) == pytest.approx(there.power_limit_watts or 0, abs=1)


@pytest.mark.usefixtures("real_driver")
def test_gpus_runs_before_a_real_gpu(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "QWEN_FP8_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", "qwen_fp8_ops", "gpus"], env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1)
    assert "GPU 0" in done.stdout
    assert ours(environ)[0][2] > 1000
