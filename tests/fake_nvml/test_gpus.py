"""GPUs as a driver tells them, with a library of our own in the driver's place: what is read, what is shown, what refuses a start.

The library is found by its name through LD_LIBRARY_PATH, so everything here happens in child processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jsonschema
import pytest

from qwen_fp8_ops.outside import process
from tests.fake_nvml.fake import REPOSITORY, FakeDriver

MIB = 1 << 20
SCHEMA = json.loads((REPOSITORY / "qwen_fp8_ops" / "report" / "status.schema.json").read_text())

STATUS = "from qwen_fp8_ops.report.status import collect; answer = collect(RunPaths(Path({home!r})))"
CHECK = """
from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.plan.launch import make_plan
from qwen_fp8_ops.preflight.checks import Subject, check_gpus
paths = RunPaths(Path('.'))
answer = [one.as_json() for one in check_gpus(Subject(make_plan(load(overrides=['GPU_COUNT={gpus}']), paths), paths, {{}}))]
"""


@pytest.mark.parametrize(
    ("gpus", "wanted", "level", "seen"),
    [
        ("count=8", 8, "pass", "8 GPUs"),
        ("count=8", 4, "pass", "8 GPUs"),
        ("count=7", 8, "fail", "Requested 8 GPUs but only 7 available"),
        ("count=8 lost=3", 8, "fail", "Requested 8 GPUs but only 7 available (GPU 3: GPU is lost)"),
        ("count=8 gone=3", 8, "fail", "Requested 8 GPUs but only 7 available (GPU 3: GPU is lost)"),
        ("count=8 lost=3", 7, "pass", "7 GPUs"),
        ("count=0", 8, "fail", "Requested 8 GPUs but only 0 available"),
        ("init=9", 8, "fail", "Requested 8 GPUs but only 0 available (no NVIDIA driver answers: Driver Not Loaded)"),
        ("init=18", 8, "fail", "Requested 8 GPUs but only 0 available (no NVIDIA driver answers: RM has detected an NVML/RM version mismatch.)"),
    ],
)
def test_a_start_needs_the_gpus_that_it_asks_for(fake_driver: FakeDriver, gpus: str, wanted: int, level: str, seen: str) -> None:
    (finding,) = fake_driver.ask(CHECK.format(gpus=f"{wanted}', 'TENSOR_PARALLEL_SIZE=1"), gpus)
    assert (finding["level"], finding["seen"]) == (level, seen)


@contextmanager
def engine(*titles: str) -> Iterator[tuple[process.Identity, list[int]]]:
    """A session as an engine's: a leader, and workers that bear these titles."""
    program = (
        "import subprocess, sys\n"
        "workers = [subprocess.Popen([title, '600'], executable='/bin/sleep') for title in sys.argv[1:]]\n"
        "print(*(worker.pid for worker in workers), flush=True)\nsys.stdin.read()\nfor worker in workers: worker.kill()"
    )
    with subprocess.Popen([sys.executable, "-c", program, *titles], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True) as leader:
        assert leader.stdin
        assert leader.stdout
        pids = [int(word) for word in leader.stdout.readline().split()]
        identity = process.identify(leader.pid)
        assert identity
        try:
            yield identity, pids
        finally:
            leader.stdin.close()


def write_state(home: Path, leader: process.Identity) -> None:
    me = process.identify(os.getpid())
    assert me
    program = {"name": "engine0", "role": "engine", "state": "ready", "identity": leader.as_json(), "url": "u", "log": "l", "problem": ""}
    state = {"schema": 1, "state": "ready", "since": "2031-01-01T00:00:00Z", "supervisor": me.as_json(), "programs": [program]}
    (home / "run").mkdir()
    (home / "run" / "state.json").write_text(json.dumps(state))


def test_memory_is_ours_or_a_strangers_or_nobodys(fake_driver: FakeDriver, tmp_path: Path) -> None:
    with engine("VLLM::Worker_TP0_EP0", "VLLM::Worker_TP1_EP1", "VLLM::EngineCore") as (leader, (first, second, _)):
        write_state(tmp_path, leader)
        gpus = f"count=4 lost=3 used=0:70000 proc=0:{first}:69000 proc=0:1:500 used=1:70000 proc=1:{second}:? used=2:5000 proc=2:1:5000"
        status = fake_driver.ask(STATUS.format(home=str(tmp_path)), gpus)
    jsonschema.validate(status, SCHEMA)
    keys = ("own_bytes", "foreign_bytes", "unattributed_bytes", "ranks", "problems")
    assert [[gpu[key] for key in keys] for gpu in status["gpus"]] == [
        [69_000 * MIB, 500 * MIB, 500 * MIB, [0], []],
        [0, 0, 70_000 * MIB, [1], []],
        [0, 5000 * MIB, 0, [], []],
        [0, 0, None, [], ["GPU is lost"]],
    ]
    roles = {entry["pid"]: (entry["role"], entry["rank"]) for entry in status["processes"]}
    assert (roles[first], roles[second], roles[leader.pid]) == (("worker", 0), ("worker", 1), ("engine", None))


def test_a_status_without_a_driver_says_why(fake_driver: FakeDriver, tmp_path: Path) -> None:
    status = fake_driver.ask(STATUS.format(home=str(tmp_path)), "init=18")
    jsonschema.validate(status, SCHEMA)
    assert status["gpus"] == []
    assert [problem["code"] for problem in status["problems"]] == ["driver-mismatch"]
    assert "RM has detected an NVML/RM version mismatch." in status["problems"][0]["message"]
