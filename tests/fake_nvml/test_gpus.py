"""GPUs as a driver tells them, with a library of our own in the driver's place: what is read, what is shown, what refuses a start.

The library is found by its name through LD_LIBRARY_PATH, so everything here happens in child processes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from qwen_fp8_ops.outside import process

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
MIB = 1 << 20
TOTAL = 81_559 * MIB
SCHEMA = json.loads((REPOSITORY / "qwen_fp8_ops" / "report" / "status.schema.json").read_text())

SNAPSHOT = "from dataclasses import asdict; from qwen_fp8_ops.outside import nvml; answer = asdict(nvml.snapshot())"
STATUS = "from qwen_fp8_ops.report.status import collect; answer = collect(RunPaths(Path({home!r})))"
CHECK = """
from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.plan.launch import make_plan
from qwen_fp8_ops.preflight.checks import Subject, check_gpus
paths = RunPaths(Path('.'))
answer = [one.as_json() for one in check_gpus(Subject(make_plan(load(overrides=['GPU_COUNT={gpus}']), paths), paths, {{}}))]
"""


@dataclass(frozen=True)
class Driver:
    """The built library; ``ask`` runs a program beside it that leaves its ``answer``."""

    folder: Path

    def ask(self, program: str, gpus: str) -> Any:
        whole = f"import json\nfrom pathlib import Path\nfrom qwen_fp8_ops.config.paths import RunPaths\n{program}\nprint(json.dumps(answer))"
        environ = {**os.environ, "LD_LIBRARY_PATH": str(self.folder), "FAKE_NVML": gpus, "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run([sys.executable, "-c", whole], cwd=self.folder, env=environ, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("driver")
    command = [compiler, "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(folder / "libnvidia-ml.so.1"), str(HERE / "nvml.c")]
    subprocess.run(command, check=True, timeout=120)
    return Driver(folder)


def test_a_snapshot_of_eight_healthy_gpus(driver: Driver) -> None:
    found = driver.ask(SNAPSHOT, "count=8 used=0:70000 proc=0:4711:69000")
    assert (len(found["gpus"]), found["problem"]) == (8, "")
    assert found["gpus"][0] == {
        "index": 0,
        "uuid": "GPU-00000000-0000-0000-0000-000000000000",
        "name": "NVIDIA H100 80GB HBM3",
        "memory_total_bytes": TOTAL,
        "memory_used_bytes": 70_000 * MIB,
        "memory_free_bytes": (81_559 - 479 - 70_000) * MIB,
        "utilization_percent": 37,
        "temperature_celsius": 41,
        "power_watts": 123.45,
        "processes": [{"pid": 4711, "memory_bytes": 69_000 * MIB}],
        "problems": [],
        "lost": False,
    }
    assert [gpu["index"] for gpu in found["gpus"]] == list(range(8))
    assert found["gpus"][7]["processes"] == []


@pytest.mark.parametrize("word", ["lost", "gone"])
def test_a_lost_gpu_costs_itself_and_no_other(driver: Driver, word: str) -> None:
    gpus = driver.ask(SNAPSHOT, f"{word}=3")["gpus"]
    assert [gpu["lost"] for gpu in gpus] == [index == 3 for index in range(8)]
    assert (gpus[3]["problems"], gpus[3]["memory_total_bytes"]) == (["GPU is lost"], None)
    assert gpus[4]["memory_total_bytes"] == TOTAL


@pytest.mark.parametrize(
    ("getter", "key"), [("Power", "power_watts"), ("Utilization", "utilization_percent"), ("Temperature", "temperature_celsius"), ("Name", "name"), ("UUID", "uuid")]
)
def test_what_a_gpu_does_not_tell_is_none_and_no_problem(driver: Driver, getter: str, key: str) -> None:
    gpu = driver.ask(SNAPSHOT, f"count=1 no={getter}")["gpus"][0]
    assert (gpu[key], gpu["problems"], gpu["lost"]) == (None, [], False)
    assert [name for name, value in gpu.items() if value is None] == [key]


def test_an_older_driver_is_asked_the_older_way(driver: Driver) -> None:
    gpu = driver.ask(SNAPSHOT, "count=1 used=0:1000 no=MemoryInfo_v2")["gpus"][0]
    assert (gpu["memory_total_bytes"], gpu["memory_used_bytes"], gpu["problems"]) == (TOTAL, 1479 * MIB, [])


def test_memory_that_no_call_tells_is_none(driver: Driver) -> None:
    gpu = driver.ask(SNAPSHOT, "count=1 no=MemoryInfo_v2 no=MemoryInfo no=Processes")["gpus"][0]
    assert (gpu["memory_total_bytes"], gpu["memory_used_bytes"], gpu["processes"], gpu["problems"]) == (None, None, [], [])


@pytest.mark.parametrize(("code", "words"), [(9, "Driver Not Loaded"), (18, "RM has detected an NVML/RM version mismatch.")])
def test_a_driver_that_does_not_answer_is_a_problem_and_no_crash(driver: Driver, code: int, words: str) -> None:
    assert driver.ask(SNAPSHOT, f"init={code}") == {"gpus": [], "problem": f"no NVIDIA driver answers: {words}"}


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
def test_a_start_needs_the_gpus_that_it_asks_for(driver: Driver, gpus: str, wanted: int, level: str, seen: str) -> None:
    (finding,) = driver.ask(CHECK.format(gpus=f"{wanted}', 'TENSOR_PARALLEL_SIZE=1"), gpus)
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


def test_memory_is_ours_or_a_strangers_or_nobodys(driver: Driver, tmp_path: Path) -> None:
    with engine("VLLM::Worker_TP0_EP0", "VLLM::Worker_TP1_EP1", "VLLM::EngineCore") as (leader, (first, second, _)):
        write_state(tmp_path, leader)
        gpus = f"count=4 lost=3 used=0:70000 proc=0:{first}:69000 proc=0:1:500 used=1:70000 proc=1:{second}:? used=2:5000 proc=2:1:5000"
        status = driver.ask(STATUS.format(home=str(tmp_path)), gpus)
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


def test_a_status_without_a_driver_says_why(driver: Driver, tmp_path: Path) -> None:
    status = driver.ask(STATUS.format(home=str(tmp_path)), "init=18")
    jsonschema.validate(status, SCHEMA)
    assert status["gpus"] == []
    assert [problem["code"] for problem in status["problems"]] == ["no-gpus"]
    assert "RM has detected an NVML/RM version mismatch." in status["problems"][0]["message"]
