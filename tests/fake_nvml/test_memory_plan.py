"""The memory plan over GPUs as a driver shows them: what they have, what is free on them now, and whose that is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.outside import lock, process
from tests.fake_nvml.fake import FakeDriver

USABLE = 81_080 << 20


class Machine:
    def __init__(self, library: FakeDriver, home: Path) -> None:
        self.driver, self.home = library, home
        (home / "run").mkdir(parents=True)

    def plan(self, gpus: str, *words: str, **environ: str) -> dict[str, Any]:
        done = self.driver.run(gpus, "plan", "--json", *words, QWEN_FP8_HOME=str(self.home), **environ)
        value: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (0 if value["fits"] else 4), done.stderr
        return value


@pytest.fixture
def machine(fake_driver: FakeDriver, tmp_path: Path) -> Machine:
    return Machine(fake_driver, tmp_path / "home")


def test_the_memory_is_the_drivers_without_its_reserved_part(machine: Machine) -> None:
    found = machine.plan("count=8")
    assert (found["hardware"]["usable_bytes"], found["hardware"]["free_bytes"]) == (USABLE, [USABLE] * 8)
    assert found["hardware"]["source"] == "the driver, now (8 x NVIDIA H100 80GB HBM3)"
    assert machine.plan("count=8 no=MemoryInfo_v2")["hardware"]["usable_bytes"] == USABLE  # an older driver counts it as used


def test_a_stray_process_is_named_with_the_engines_words(machine: Machine) -> None:
    found = machine.plan("count=8 used=5:9000 proc=5:4711:9000")
    assert "Free memory on device cuda:5 (70.39/79.18 GiB) on startup is less than desired GPU memory utilization (0.9, 71.26 GiB)." in found["error_expected"]
    assert next((advice["key"], advice["value"]) for advice in found["advice"]) == ("GPU_MEMORY_UTIL", 0.88)
    assert machine.plan("count=8 used=5:9000 proc=5:4711:9000", "--set", "GPU_MEMORY_UTIL=0.88")["fits"]


def test_a_gpu_outside_the_allocation_does_not_count(machine: Machine) -> None:
    words = ("--gpus", "4")
    assert machine.plan("count=8 used=7:70000", *words)["fits"]
    assert machine.plan("count=8 used=0:70000", *words, CUDA_VISIBLE_DEVICES="4,5,6,7")["fits"]
    assert not machine.plan("count=8 used=0:70000", *words)["fits"]


@pytest.mark.parametrize("gpus", ["count=4", "init=9", "count=8 lost=3", "count=8 no=MemoryInfo_v2 no=MemoryInfo"])
def test_too_few_gpus_are_planned_by_their_description(machine: Machine, gpus: str) -> None:
    found = machine.plan(gpus)
    assert found["fits"]
    assert (found["hardware"]["name"], found["hardware"]["free_bytes"]) == ("H100-80", None)


def test_what_our_own_service_holds_is_given_back_before_the_next_start(machine: Machine) -> None:
    full = "count=8 " + " ".join(f"used={index}:75000" for index in range(8))
    assert not machine.plan(full)["fits"]
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as supervisor:
        identity = process.identify(supervisor.pid)
        assert identity
        assert lock.acquire(machine.home / "run" / "lock", identity) is None
        assert machine.plan(full)["fits"]
        supervisor.communicate(b"\n", timeout=30)
    assert not machine.plan(full)["fits"]


def test_a_start_on_these_gpus_becomes_the_overhead(machine: Machine) -> None:
    program = """
import sys
from pathlib import Path
from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.engine.startup_log import EngineMemory
from qwen_fp8_ops.plan.situation import Situation
home = Path(sys.argv[1])
settings = load().settings
memory = EngineMemory(weights_bytes_per_rank=31_300_000_000, kv_cache_bytes_per_rank=41_000_000_000, kv_cache_tokens=851_888)
Situation(settings, settings.folder(settings.model_path, home), RunPaths(home), {}).remember_start(memory)
"""
    before = machine.plan("count=8")
    machine.driver.show("count=8 used=0:75000")
    subprocess.run([sys.executable, "-c", program, str(machine.home)], env=machine.driver.whole_environ(), check=True, timeout=60)
    after = machine.plan("count=8")
    assert (before["overhead"]["source"], after["overhead"]["source"]) == ("assumed", "measured")
    assert after["per_rank"]["kv_room_bytes"] == pytest.approx(41_000_000_000, abs=2)
    assert after["measured"]["kv_cache_tokens"] == 851_888
    assert after["kv_tokens"] == pytest.approx(851_888, rel=1e-3)
    assert machine.plan("count=8", "--set", "MAX_NUM_SEQS=8")["overhead"]["source"] == "assumed"


def test_what_a_start_records_of_its_plan_is_in_the_engines_own_terms(machine: Machine) -> None:
    program = """
import os
from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.plan.launch import make_plan
from qwen_fp8_ops.plan.situation import expected_memory
paths = RunPaths(Path(os.environ["HOME_HERE"]))
answer = [expected_memory(make_plan(load(profiles=profiles), paths), paths, {}) for profiles in ([], ["demo"])]
"""
    rank = machine.plan("count=8")["per_rank"]
    expected, on_cpu = machine.driver.ask(program, "count=8", HOME_HERE=str(machine.home))
    assert on_cpu is None
    assert (expected["weights_bytes_per_rank"], expected["kv_cache_bytes_per_rank"]) == (rank["logged_weights_bytes"], rank["kv_room_bytes"])
    # The parts are the whole budget, however they are named.
    assert sum(expected.values()) == rank["weights_bytes"] + rank["overhead_bytes"] + rank["kv_room_bytes"]
