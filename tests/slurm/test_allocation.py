"""The allocation we are in: environments and answers recorded from a cluster, and commands that fail as real ones do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import process
from qwen_fp8_ops.slurm import allocation, ask, parse
from qwen_fp8_ops.slurm.allocation import current, salloc_line
from tests.slurm.commands import Commands, recorded, recorded_environ

INSIDE = {"SLURM_JOB_ID": "4711", "SLURM_JOB_PARTITION": "gpu", "SLURMD_NODENAME": "node07", "SLURM_GPUS_ON_NODE": "8"}


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(tmp_path, monkeypatch)


def test_outside_there_is_none(commands: Commands) -> None:
    assert current({}) is None
    assert current({"SLURM_JOB_ID": ""}) is None


def test_in_a_batch_script(commands: Commands) -> None:
    commands.tell("scontrol", recorded("job-running-22.05"))
    found = current(recorded_environ("environ-sbatch-22.05"))
    assert found
    assert (found.job_id, found.partition, found.node, found.nodes, found.on_node, found.batch) == ("1", "main", "node1", ("node1",), True, True)
    assert (found.gpus, found.gpu_indices, found.cpus, found.memory_bytes) == (4, (0, 1, 2, 3), 8, 32 << 30)
    assert found.ends_at == parse.moment("2026-11-21T12:50:46")
    assert found.problem == ""
    assert commands.asked == ["scontrol --details show job 1"]


def test_in_a_step_its_own_gpus_count(commands: Commands) -> None:
    commands.refuse("scontrol", "slurm_load_jobs error: Invalid job id specified")
    found = current(recorded_environ("environ-srun-22.05"))
    assert found
    assert (found.gpus, found.gpu_indices, found.cpus, found.batch, found.on_node) == (2, (4, 5), 4, False, True)


def test_in_sallocs_own_shell_the_controller_knows_the_gpus(commands: Commands) -> None:
    commands.tell("scontrol", recorded("job-salloc-22.05"))
    found = current(recorded_environ("environ-salloc-22.05"))
    assert found
    assert (found.node, found.gpus, found.gpu_indices, found.cpus, found.memory_bytes) == ("node1", 2, (4, 5), 4, 1 << 30)
    assert not found.on_node and not found.batch, "this host is not node1"


def test_by_ssh_the_control_group_tells_the_job(commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text("0::/system.slice/slurmstepd.scope/job_4711/step_extern/user/task_0\n")
    monkeypatch.setattr(process, "PROC", tmp_path)
    commands.tell("scontrol", recorded("job-salloc-22.05"))
    found = current({})
    assert found
    assert (found.job_id, found.gpu_indices) == ("4711", (4, 5))


@pytest.mark.parametrize(("answer", "job_id"), [("42\n", "42"), ("42\n42\n", "42"), ("42\n43\n", None), ("", None)])
def test_by_ssh_without_one_our_only_job_on_the_node_is_it(commands: Commands, monkeypatch: pytest.MonkeyPatch, answer: str, job_id: str | None) -> None:
    monkeypatch.setattr(process, "command_line", lambda pid: "/usr/sbin/slurmd -D")
    commands.tell("squeue", answer)
    commands.tell("scontrol", recorded("job-salloc-22.05"))
    found = current({})
    assert (found.job_id if found else None) == job_id
    assert re.fullmatch(r"squeue --noheader --user=\d+ --nodelist=[^. ]+ --states=RUNNING --format=%A", commands.asked[0])


def test_a_login_node_is_no_node_of_the_cluster(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    commands.tell("scontrol", "")
    commands.tell("squeue", "42")
    monkeypatch.setattr(process, "command_line", lambda pid: "/usr/bin/bash")
    assert current({}) is None
    assert commands.asked == []


@pytest.mark.parametrize(
    ("does", "problem"),
    [
        (
            "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1",
            "SLURM's controller cannot be reached: Unable to contact slurm controller (connect failure)",
        ),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", "scontrol: Invalid job id specified"),
        ("exec /bin/sleep 600", "SLURM does not answer: scontrol gave no answer in 0.5 s"),
        ("exit 3", "scontrol: exit code 3"),
    ],
)
def test_a_controller_that_tells_nothing_is_one_line(commands: Commands, monkeypatch: pytest.MonkeyPatch, does: str, problem: str) -> None:
    run = ask.slurm.run
    monkeypatch.setattr(ask.slurm, "run", lambda argv: run(argv, timeout=0.5))
    commands.make("scontrol", does)
    found = current({**INSIDE, "SLURM_JOB_END_TIME": "1924945200"})
    assert found
    assert (found.problem, found.node, found.gpus) == (problem, "node07", 8)
    assert found.ends_at == "2030-12-31T11:00:00.000Z", "the environment of later releases"


def test_without_the_commands_the_rest_is_known(commands: Commands) -> None:
    found = current({"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "node[07-08]"})
    assert found
    assert (found.job_id, found.node, found.nodes, found.gpus, found.ends_at) == ("1", "node07", ("node07", "node08"), None, None)
    assert found.problem == "SLURM is not here: scontrol is not installed here"


@pytest.mark.parametrize(("text", "gpus"), [("8", 8), ("0", 0), ("", None), ("h100:8", None), ("²", None)])
def test_a_number_of_gpus_is_a_number(commands: Commands, text: str, gpus: int | None) -> None:
    found = current({**INSIDE, "SLURM_GPUS_ON_NODE": text})
    assert found
    assert found.gpus == gpus


def test_the_end_is_asked_for(commands: Commands) -> None:
    commands.tell("squeue", "2031-07-01T12:00:00\n")
    assert allocation.end_of("7") == parse.moment("2031-07-01T12:00:00")
    assert commands.asked == ["squeue --noheader --jobs=7 --format=%e"]
    commands.tell("squeue", "N/A\n")
    assert allocation.end_of("7") is None
    commands.tell("squeue", "")
    with pytest.raises(OpsError, match="says nothing of job 7"):
        allocation.end_of("7")  # no answer is not the answer that it has no end


def test_the_line_that_asks_for_an_allocation() -> None:
    settings = load(overrides=["SLURM_PARTITION=gpu-h100", "GPU_COUNT=4", "TENSOR_PARALLEL_SIZE=4", "SLURM_TIME=2-00:00", "SLURM_JOB_NAME=mine"]).settings
    assert salloc_line(settings) == "salloc -p gpu-h100 --job-name=mine --gres=gpu:4 --mem=320G --cpus-per-task=32 --time=2-00:00"
    assert "--gres" not in salloc_line(load(profiles=["demo"]).settings)
    assert salloc_line(load().settings) == "salloc --job-name=qwen-vl-fp8 --gres=gpu:8 --mem=320G --cpus-per-task=32 --time=24:00:00"
