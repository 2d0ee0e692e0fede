"""The queue's rows, as squeue of 22.05 printed them; a separator that no name can hold keeps hostile ones apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.slurm import parse, queue, submit
from tests.slurm.commands import Commands

ROW = "\x1f".join


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(tmp_path, monkeypatch)


RUNNING = ROW(
    [
        "1",
        "a|b c",
        "RUNNING",
        "main",
        "node1",
        "gres:gpu:4",
        "2026-11-21T12:40:46",
        "2026-11-21T12:50:46",
        "10:00",
        "None",
        "qwen-fp8:/home/ada/my runs",
        "/home/ada/my runs",
    ]
)
PENDING = ROW(
    ["2", "qwen-vl-fp8", "PENDING", "main", "", "gres:gpu:8", "2026-11-21T13:40:45", "2026-11-22T15:40:45", "1-02:00:00", "BeginTime", "(null)", "/home/ada"]
)
WAITING = ROW(["3", "job.sh", "PENDING", "main", "", "N/A", "N/A", "N/A", "UNLIMITED", "Dependency", "(null)", "/home/ada"])


def test_rows() -> None:
    running, pending, waiting = queue.read_queue(f"{RUNNING}\n{PENDING}\n{WAITING}\nan error of some plugin")
    assert (running.job_id, running.name, running.is_running, running.nodes, running.gres, running.home) == (
        "1",
        "a|b c",
        True,
        ("node1",),
        "gres:gpu:4",
        Path("/home/ada/my runs"),
    )
    assert (running.ends_at, running.limit_seconds, running.reason) == (parse.moment("2026-11-21T12:50:46"), 600, "")
    assert (pending.is_running, pending.starts_at, pending.limit_seconds, pending.reason, pending.home) == (
        False,
        parse.moment("2026-11-21T13:40:45"),
        93600,
        "BeginTime",
        None,
    )
    assert (waiting.starts_at, waiting.ends_at, waiting.limit_seconds, waiting.gres) == (None, None, None, "")


def test_ours_are_those_with_our_comment_or_our_name(commands: Commands) -> None:
    commands.tell("squeue", f"{RUNNING}\n{PENDING}\n{WAITING}")
    assert [job.job_id for job in queue.our_jobs("qwen-vl-fp8")] == ["1", "2"]
    assert [job.job_id for job in queue.our_jobs("other")] == ["1"]


def test_a_job_that_the_queue_forgot_is_none(commands: Commands) -> None:
    commands.refuse("squeue", "slurm_load_jobs error: Invalid job id specified")
    assert queue.find("99") is None
    commands.tell("squeue", "")
    assert queue.find("99") is None


def test_another_refusal_is_one(commands: Commands) -> None:
    commands.refuse("squeue", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    with pytest.raises(OpsError) as caught:
        queue.find("99")
    assert (caught.value.code, caught.value.fix.split("   ")[0]) == ("slurm-unreachable", "scontrol ping")


@pytest.mark.parametrize(("said", "job_id"), [("4711\n", "4711"), ("4711;cluster\n", "4711")])
def test_sbatch_tells_the_id(commands: Commands, monkeypatch: pytest.MonkeyPatch, said: str, job_id: str) -> None:
    commands.tell("sbatch", said)
    assert submit.chain(Path("/home/ada/run/job.sbatch"), "12") == job_id
    assert commands.asked == ["sbatch --parsable --dependency=afterany:12 /home/ada/run/job.sbatch"]


def test_a_chained_job_inherits_nothing_of_this_one(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/slurm.conf")
    commands.make("sbatch", f"/usr/bin/env > '{commands.folder}/environ'; echo 13")
    submit.chain(Path("x"), "12")
    environ = (commands.folder / "environ").read_text()
    assert "SLURM_CONF=/etc/slurm/slurm.conf" in environ and "SLURM_JOB_ID" not in environ


def test_an_answer_without_an_id_is_refused(commands: Commands) -> None:
    commands.tell("sbatch", "Welcome to the cluster\n")
    with pytest.raises(OpsError, match="sbatch told no job id: 'Welcome to the cluster'"):
        submit.chain(Path("x"), "12")
