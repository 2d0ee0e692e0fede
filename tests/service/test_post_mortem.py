"""What is gathered about a dead engine, and what the user reads of it: the real supervisor over stand-in programs."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from qwen_fp8_ops.outside import host_memory, kernel_log
from qwen_fp8_ops.service import post_mortem
from qwen_fp8_ops.service.post_mortem import PostMortem
from tests.fake_nvml.fake import FakeDriver
from tests.service.harness import StandInService

NO_ROOM = "Process EngineCore:\nTraceback (most recent call last):\nValueError: No available memory for the cache blocks. Try increasing it.\nRuntimeError: Engine core initialization failed."
FALLEN = "NVRM: Xid (PCI:0000:{}:00): 79, pid=1, name=VLLM::Worker_TP, GPU has fallen off the bus."


def test_a_start_that_can_never_work_ends_at_once_with_cause_evidence_and_remedy(service: StandInService) -> None:
    service.behave(die_with=NO_ROOM)
    service.start()
    code, said = service.ended()
    assert code == 1
    error = service.status()["error"]
    assert error["code"] == "no-kv-cache-memory"
    first, *seen = error["message"].splitlines()
    assert first == "The engine does not run: exit code 1: weights and activations leave no memory for the KV cache. Starting again cannot help."
    assert seen == ["  What was seen:", "    ValueError: No available memory for the cache blocks. Try increasing it."]
    assert re.search(r"^Set MAX_NUM_BATCHED_TOKENS=2048 in config.env: ", error["fix"], re.MULTILINE)
    assert error["fix"].splitlines()[-1] == f"Whole log: {service.paths.service_log}"
    assert "No available memory for the cache blocks" in said
    (died,) = [event for event in service.events("program-died") if event["name"] == "engine0"]
    assert died["code"] == "no-kv-cache-memory"
    assert died["cause"][0] == "weights and activations leave no memory for the KV cache"


def test_what_no_rule_knows_is_told_in_the_logs_own_words(service: StandInService) -> None:
    service.behave(die_with="RuntimeError: nobody has seen this before")
    service.start()
    code, _ = service.ended()
    assert code == 5, "it was tried once more"
    error = service.status()["error"]
    assert error["code"] == "gave-up"
    assert "exit code 1: RuntimeError: nobody has seen this before" in error["message"]
    assert {event["code"] for event in service.events("program-died")} == {"unknown"}


def test_the_damaged_shard_is_named(service: StandInService) -> None:
    (shard,) = (service.paths.home / "model").glob("*.safetensors")
    service.engine_script = service.paths.home / "engine.py"
    service.engine_script.write_text(
        f"import os, sys\nos.truncate({str(shard)!r}, 100)\nprint('safetensors._safetensors_rust.SafetensorError: file not fully covered')\nsys.exit(1)\n"
    )
    service.start()
    code, _ = service.ended()
    error = service.status()["error"]
    assert (code, error["code"]) == (1, "shard-damaged")
    assert shard.name in error["message"].splitlines()[0]
    assert "qwen-fp8 verify --repair" in error["fix"].splitlines()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the kernel has logged, to be added to; each look computes its stamps anew, as dmesg does."""
    said: list[str] = []
    looks = iter(range(1000))

    def lines(pattern: str) -> list[str]:
        look = next(looks)
        return [f"2026-11-21T10:00:{number:02},{look:06}+00:00 {line}" for number, line in enumerate(said) if re.search(pattern, line)]

    monkeypatch.setattr(kernel_log, "lines", lines)
    return said


def test_only_what_the_kernel_said_since_the_last_look_counts(service: StandInService, kernel: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    kills = [4]
    monkeypatch.setattr(host_memory, "oom_kills", lambda: kills[0])
    kernel += [FALLEN.format("1b"), "eth0: link up"]
    plan = service.plan()
    watch = PostMortem(service.paths, lambda: None)
    assert watch._new_kernel_lines(plan.engines[0], plan) == ()
    assert watch._new_oom_kills() == 0
    kernel += [FALLEN.format("1b"), FALLEN.format("2c")]
    kills[0] = 6
    assert [line[-len(FALLEN) :] for line in watch._new_kernel_lines(plan.engines[0], plan)] == [
        FALLEN.format("1b")[-len(FALLEN) :],
        FALLEN.format("2c")[-len(FALLEN) :],
    ]
    assert watch._new_oom_kills() == 2
    assert watch._new_kernel_lines(plan.engines[0], plan) == ()
    kernel.clear()
    assert watch._new_kernel_lines(plan.engines[0], plan) == (), "the buffer was emptied"


@pytest.mark.parametrize(
    "line",
    ["[    1.285006] text", "[12345.000001] text", "2026-11-21T10:00:00,123456+00:00 text", "2026-11-21T10:00:00+0000 node01 kernel: text", "text"],
)
def test_a_stamp_is_no_part_of_the_text(line: str) -> None:
    assert post_mortem._without_stamp(line) == "text"


@pytest.mark.parametrize(("nvml", "xid"), [("00000000:1B:00.0", "0000:1b:00"), ("0001:AF:00.0", "0001:af:00")])
def test_a_gpus_bus_is_the_same_in_both_spellings(nvml: str, xid: str) -> None:
    assert post_mortem._bus(nvml) == post_mortem._bus(xid) != post_mortem._bus("0000:00:00")


ASK = """
import os
from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.plan.launch import make_plan
from qwen_fp8_ops.service import post_mortem
plan = make_plan(load(overrides=["GPU_COUNT=2", "TENSOR_PARALLEL_SIZE=2"]), RunPaths(Path(os.environ["HOME_OF_RUN"])))
answer = [post_mortem._holders(plan.engines[0], plan), sorted(post_mortem._bus(gpu.pci_bus_id) for gpu in post_mortem._our_gpus(plan.engines[0], plan))]
"""


def test_who_holds_memory_of_our_gpus_is_named_and_nobody_on_others(fake_driver: FakeDriver, tmp_path: Path) -> None:
    me = os.getpid()
    holders, buses = fake_driver.ask(ASK, f"count=4 used=0:9000 proc=0:{me}:8192 proc=3:{me}:1024", CUDA_VISIBLE_DEVICES="0,1", HOME_OF_RUN=str(tmp_path))
    assert len(buses) == 2
    (only,) = holders
    assert re.fullmatch(rf"pid {me} \(\w+: .*\) holds 8\.00 GiB on GPU 0", only)


def test_xids_of_gpus_that_are_not_ours_are_left_out(fake_driver: FakeDriver, tmp_path: Path) -> None:
    program = ASK + (
        "from qwen_fp8_ops.outside import kernel_log, gpus\n"
        "said = []\n"
        "kernel_log.lines = lambda pattern: list(said)\n"
        "watch = post_mortem.PostMortem(RunPaths(Path(os.environ['HOME_OF_RUN'])), lambda: None)\n"
        "buses = [gpu.pci_bus_id for gpu in gpus.snapshot().gpus]\n"
        "said += ['NVRM: Xid (PCI:' + bus.lower()[4:-2] + '): 79, lost ' + str(index) for index, bus in enumerate(buses)]\n"
        "answer = watch._new_kernel_lines(plan.engines[0], plan)\n"
    )
    found = fake_driver.ask(program, "count=4", CUDA_VISIBLE_DEVICES="2,3", HOME_OF_RUN=str(tmp_path))
    assert [line[-1] for line in found] == ["2", "3"]
