"""submit, jobs and status --job where SLURM is missing, refuses or is unreachable; with a real cluster they are tried in tests/slurm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qwen_fp8_ops.cli import run
from tests.slurm.commands import Commands

ROW = "\x1f".join


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("QWEN_FP8_HOME", str(home))
    monkeypatch.chdir(home)
    found = Commands(tmp_path, monkeypatch)
    found.tell("squeue", "")
    return found


def row(home: Path, state: str, job_id: str = "7") -> str:
    return ROW([job_id, "qwen-vl-fp8", state, "main", "node9", "gres:gpu:8", "N/A", "N/A", "1:00:00", "None", f"qwen-fp8:{home}", str(home)]) + "\n"


def test_a_dry_run_prints_the_script_and_asks_nobody(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QWEN_FP8_MAX_NUM_SEQS", "8")
    (tmp_path / "home/config.env").write_text("SLURM_PARTITION=h100\n")
    assert run(["--profile", "fast", "submit", "--dry-run", "--chain", "--set", "GPU_NAME=it's"]) == 0
    script = capsys.readouterr().out
    assert "#SBATCH --partition=h100\n" in script and "#SBATCH --requeue\n" in script
    words = script.splitlines()[-1]
    # Whatever the job's environment is, it comes to the same settings.
    for part in (f"--config {tmp_path}/home/config.env", "--profile fast", "--set MAX_NUM_SEQS=8", "--set SLURM_AT_END=chain", "GPU_NAME=it"):
        assert part in words
    assert commands.asked == [] and not (tmp_path / "home/run").exists()


def test_a_dry_run_as_json(commands: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["submit", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["script"].startswith("#!/bin/bash\n")


def test_submitted(commands: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands.tell("sbatch", "4711\n")
    assert run(["submit", "--json"]) == 0
    home = tmp_path / "home"
    told = json.loads(capsys.readouterr().out)
    assert told == {"schema": 1, "ok": True, "job_id": "4711", "script": f"{home}/run/job.sbatch", "log": f"{home}/logs/slurm-4711.log"}
    assert commands.asked[-1] == f"sbatch --parsable {home}/run/job.sbatch"
    assert (home / "logs").is_dir(), "SLURM does not make it"


def test_a_refusal_of_sbatch_is_one_line(commands: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    commands.refuse("sbatch", "sbatch: error: Batch job submission failed: Requested node configuration is not available")
    assert run(["submit"]) == 1
    assert capsys.readouterr().err == "Error: sbatch: Batch job submission failed: Requested node configuration is not available\n"


def test_a_folder_has_one_job(commands: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands.tell("squeue", row(tmp_path / "home", "PENDING"))
    assert run(["submit"]) == 1
    assert f"Job 7 (PENDING) has the folder {tmp_path}/home already" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["submit"], ["jobs"], ["jobs", "stop", "7"], ["jobs", "logs", "7"], ["status", "--job", "7"]])
def test_without_slurm_it_says_so(commands: Commands, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    (commands.folder / "squeue").unlink()
    assert run([*words, "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["message"]) == ("slurm-missing", "SLURM is not here: squeue is not installed here")


@pytest.mark.parametrize("words", [["jobs", "stop", "7"], ["jobs", "logs", "7"], ["status", "--job", "7"]])
def test_a_job_that_is_not_there(commands: Commands, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert run(words) == 3
    assert "Error: SLURM knows no job 7" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["jobs", "stop", "7"], ["jobs", "logs", "7"], ["status", "--job", "7"]])
def test_somebody_elses_job_is_left_alone(commands: Commands, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    commands.tell("squeue", ROW(["7", "training", "RUNNING", "main", "node9", "", "N/A", "N/A", "1:00", "None", "(null)", "/home/eve"]) + "\n")
    assert run(words) == 1
    assert "Job 7 (training) was not submitted by `qwen-fp8 submit`" in capsys.readouterr().err
    assert not any(line.startswith("scancel") for line in commands.asked)


def test_an_empty_queue(commands: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["jobs"]) == 0
    assert capsys.readouterr().out == "No service of yours is in the queue.\n"


def record(home: Path, job_id: str, state: str) -> None:
    (home / "run").mkdir(exist_ok=True)
    supervisor = {"host": "node9", "boot_id": "b", "pid": 1, "start_ticks": 1, "job_id": job_id}
    (home / "run/state.json").write_text(json.dumps({"schema": 1, "state": state, "supervisor": supervisor, "programs": [], "leftovers": []}))


@pytest.mark.parametrize(
    ("queue_says", "recorded_by", "recorded", "told", "code"),
    [
        ("RUNNING", "7", "ready", "ready", 0),
        ("RUNNING", "7", "starting", "starting", 3),
        ("COMPLETED", "7", "stopped", "stopped", 3),
        ("NODE_FAIL", "7", "ready", "failed", 3),
        ("PENDING", "7", "ready", None, 3),
        ("RUNNING", "6", "ready", None, 3),
    ],
    ids=["it serves", "it starts", "it has stopped", "its node failed", "requeued", "the files are of an earlier job"],
)
def test_the_queue_and_the_files_together(
    commands: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str], queue_says: str, recorded_by: str, recorded: str, told: str | None, code: int
) -> None:
    commands.tell("squeue", row(tmp_path / "home", queue_says))
    record(tmp_path / "home", recorded_by, recorded)
    assert run(["status", "--job", "7", "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert (found["job"]["state"], found["service"]["state"] if found["service"] else None) == (queue_says, told)


def test_a_supervisor_that_was_killed_proves_nothing(commands: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    record(home, "7", "ready")
    (commands.folder / "row").write_text(row(home, "RUNNING"))
    # scancel takes the job out of the queue.
    commands.make("squeue", f"/bin/cat '{commands.folder}/row'")
    commands.make("scancel", f"/bin/rm -f '{commands.folder}/row'; : > '{commands.folder}/row'")
    assert run(["jobs", "stop", "7", "--force"]) == 1
    said = capsys.readouterr().err
    assert "Job 7 is gone, but its supervisor was killed before it could confirm that nothing is left on node9" in said
    assert commands.asked.count("scancel 7") == 1


def test_the_job_log_is_shown(commands: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    commands.tell("squeue", row(home, "RUNNING"))
    (home / "logs").mkdir()
    (home / "logs/slurm-7.log").write_text("one\ntwo\nthree\n")
    assert run(["jobs", "logs", "7", "-n", "2"]) == 0
    assert capsys.readouterr().out == "two\nthree\n"
    assert run(["jobs", "logs", "7", "-f", "--json"]) == 2
