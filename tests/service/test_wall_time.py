"""The end of an allocation, by the clock; what SLURM itself does near it is tried on a real cluster in tests/slurm."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.outside import clock, gpus
from qwen_fp8_ops.outside.nvml import Gpu, GpuSnapshot
from qwen_fp8_ops.outside.process import Identity, host_name
from qwen_fp8_ops.plan.launch import LaunchPlan, make_plan
from qwen_fp8_ops.service import succession
from qwen_fp8_ops.service.devices import confined
from qwen_fp8_ops.service.wall_time import PROOF_SECONDS, WallTime
from qwen_fp8_ops.slurm.allocation import Allocation
from tests.slurm.commands import Commands
from tests.waiting import wait_for


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(tmp_path, monkeypatch)


def allocation(seconds_left: float | None = None, *, managed: bool = True, batch: bool = True, **facts: object) -> Allocation:
    ends_at = None if seconds_left is None else clock.iso(time.time() + seconds_left)
    return Allocation("7", "main", "node1", 8, ends_at, managed=managed, batch=batch, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(("left", "near"), [(10_000, False), (100, False), (-5, True), (None, False)])
def test_the_end_is_near_by_the_clock(left: float | None, near: bool) -> None:
    assert WallTime(allocation(left), notice_seconds=180).is_near is near


def test_it_comes_near_while_time_passes() -> None:
    wall = WallTime(allocation(400), notice_seconds=180)
    assert not wall.is_near
    wall.ends_at = clock.iso(time.time() + 179)
    assert wall.is_near


def test_an_allocation_shorter_than_the_notice_is_served_for_half_of_its_time() -> None:
    assert WallTime(allocation(100), notice_seconds=180).notice_seconds == pytest.approx(50, abs=5)


def test_without_an_allocation_nothing_ends(tmp_path: Path) -> None:
    wall = WallTime(None, notice_seconds=180)
    wall.watch()
    wall.kill_follows()
    assert not wall.is_near and not wall.is_up
    assert wall.grace_seconds(15) == 15 and wall.drain_until(5, 100) == 105
    assert wall.requeues("requeue") is None and wall.chain("chain", RunPaths(tmp_path), print) is None


def test_an_allocation_of_another_node_ends_nothing_here() -> None:
    wall = WallTime(allocation(-5, on_node=False), notice_seconds=180)
    assert not wall.is_near and wall.ends_at is None


def test_after_slurms_sigterm_everything_is_shorter() -> None:
    wall = WallTime(allocation(10_000), notice_seconds=180)
    wall.kill_wait_seconds = 30
    began = clock.monotonic()
    wall.kill_follows()
    assert wall.drain_until(began, 120) == pytest.approx(began + 12, abs=2)
    assert wall.drain_until(began, 5) == began + 5
    assert wall.grace_seconds(15) == 15
    assert wall.grace_seconds(600) == pytest.approx(30 - PROOF_SECONDS, abs=2)
    assert not wall.is_up
    wall.kill_at = clock.monotonic() + 1
    assert wall.is_up and wall.grace_seconds(15) == 0


def test_where_slurm_did_not_start_us_a_sigterm_is_a_persons() -> None:
    wall = WallTime(allocation(10_000, managed=False), notice_seconds=180)
    wall.kill_follows()
    assert wall.kill_at is None


def test_killwait_and_a_moved_end_are_asked_for(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen_fp8_ops.service.wall_time.ASK_SECONDS", 0.05)
    commands.tell("scontrol", "KeepAliveTime           = SYSTEM_DEFAULT\nKillWait                = 45 sec\n")
    commands.tell("squeue", "2031-07-01T12:00:00\n")
    wall = WallTime(allocation(1000), notice_seconds=180)
    wall.watch()
    wait_for(lambda: wall.kill_wait_seconds == 45 and (wall.ends_at or "").startswith("2031-07-01"), "the end has moved")
    commands.refuse("squeue", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    asked = len(commands.asked)
    wait_for(lambda: len(commands.asked) > asked + 2, "it was asked again, in vain")
    assert (wall.ends_at or "").startswith("2031-07-01"), "what was told last still counts"


def test_only_a_batch_job_goes_on(commands: Commands) -> None:
    commands.tell("sbatch", "8\n")
    step, batch = WallTime(allocation(batch=False), notice_seconds=1), WallTime(allocation(), notice_seconds=1)
    said: list[tuple[str, str]] = []

    def tell(text: str, level: str) -> None:
        said.append((text, level))

    paths = RunPaths(commands.folder)
    assert (step.requeues("requeue"), batch.requeues("requeue"), batch.requeues("stop"), batch.requeues("chain")) == (None, "7", None, None)
    assert (step.chain("chain", paths, tell), batch.chain("stop", paths, tell), batch.chain("chain", paths, tell)) == (None, None, "8")
    commands.refuse("sbatch", "sbatch: error: Batch job submission failed: Invalid account")
    assert batch.chain("chain", paths, tell) is None
    assert said[-1] == ("No job was chained: sbatch: Batch job submission failed: Invalid account", "error")


def plan(tmp_path: Path, *overrides: str) -> LaunchPlan:
    return make_plan(load(overrides=["GPU_COUNT=2", "TENSOR_PARALLEL_SIZE=2", *overrides]), RunPaths(tmp_path))


@pytest.mark.parametrize(
    ("environ", "seen", "facts", "devices"),
    [
        ({}, 8, {"gpu_indices": (4, 5)}, "4,5"),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, 8, {"gpu_indices": (4, 5)}, None),
        ({}, 2, {"gpu_indices": (4, 5)}, None),
        ({}, 8, {}, None),
        ({}, 8, {"gpu_indices": (4, 5), "on_node": False}, None),
    ],
    ids=["salloc's shell on a shared node", "SLURM has set it", "the site confines us", "nothing is known", "not on the node"],
)
def test_an_engine_takes_the_gpus_of_its_allocation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], seen: int, facts: dict[str, object], devices: str | None
) -> None:
    monkeypatch.setattr(gpus, "snapshot", lambda: GpuSnapshot(tuple(Gpu(index=index) for index in range(seen))))
    made = confined(plan(tmp_path), allocation(**facts), environ)  # type: ignore[arg-type]
    assert made.engines[0].env.get("CUDA_VISIBLE_DEVICES") == devices
    assert "CUDA_VISIBLE_DEVICES" not in made.media.env


def test_outside_of_an_allocation_the_plan_stays(tmp_path: Path) -> None:
    made = plan(tmp_path)
    assert confined(made, None, {}) is made


def holder(host: str, job_id: str | None) -> Identity:
    return Identity(host, "boot", 1, 1, job_id)


@pytest.mark.parametrize(
    ("state", "over"),
    [("RUNNING", False), ("COMPLETING", False), ("PENDING", False), ("NODE_FAIL", True), ("COMPLETED", True), ("CANCELLED", True), ("TIMEOUT", True)],
)
def test_a_lock_of_another_node_lives_as_long_as_its_job(commands: Commands, state: str, over: bool) -> None:
    commands.tell("squeue", f"7\x1fqwen\x1f{state}\x1fmain\x1fnode9\x1fN/A\x1fN/A\x1fN/A\x1f1:00\x1fNone\x1f(null)\x1f/home" + "\n")
    assert succession.is_over(holder("node9", "7"), None) is over


def test_a_lock_of_another_node_is_not_judged_without_an_answer(commands: Commands) -> None:
    commands.refuse("squeue", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    assert not succession.is_over(holder("node9", "7"), None)
    assert not succession.is_over(holder("node9", None), "7"), "no job, nobody to ask"
    assert not succession.is_over(holder(host_name(), "7"), "7"), "of this host the process itself tells"
    assert succession.is_over(holder("node9", "7"), "7"), "we are the same job, requeued"


def test_a_forgotten_job_is_over(commands: Commands) -> None:
    commands.refuse("squeue", "slurm_load_jobs error: Invalid job id specified")
    assert succession.is_over(holder("node9", "7"), None)
