"""submit --caption and --qa: what is asked of SLURM, and what the jobs would run."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_fp8_ops.cli import run
from qwen_fp8_ops.slurm.client_script import ClientJob, client_script
from tests.batch.quick_server import FOLDER, serving
from tests.batch.scenery import CHECKOUT, make_images
from tests.slurm.commands import Commands

ROW = "\x1f".join
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
CAPTION = ["submit", "--caption", "--dataset-path", "images", "--prompt-style", "SHORT"]


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("QWEN_FP8_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    found = Commands(tmp_path, monkeypatch)
    row = ["7", "qwen-vl-fp8", "PENDING", "main", "", "gres:gpu:8", "N/A", "N/A", "1:00:00", "None", f"qwen-fp8:{home}", str(home)]
    found.tell("squeue", ROW(row) + "\n")
    # A new number each time, and the script as it was then.
    count = f'n=$(($(/bin/cat {tmp_path}/count 2>/dev/null || echo 100) + 1)); echo $n > {tmp_path}/count; for last; do :; done; /bin/cp "$last" {tmp_path}/script-$n; echo $n'
    found.make("sbatch", count)
    return found


def test_against_the_service_of_this_folder(commands: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*CAPTION, "--partition", "cpu", "--mem", "8G", "--sbatch=--account=physics", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    home = tmp_path / "home"
    assert told == {"schema": 1, "ok": True, "job_id": "101", "merge_job_id": None, "log": f"{home}/logs/qwen-vl-fp8-caption-101.log"}
    assert (tmp_path / "script-101").read_text() == (
        "#!/bin/bash\n"
        "#SBATCH --job-name=qwen-vl-fp8-caption\n"
        "#SBATCH --nodes=1\n"
        "#SBATCH --ntasks=1\n"
        "#SBATCH --cpus-per-task=8\n"
        "#SBATCH --mem=8G\n"
        "#SBATCH --time=2-00:00:00\n"
        "#SBATCH --signal=B:TERM@120\n"
        f"#SBATCH --chdir={tmp_path}\n"
        f"#SBATCH --output={home}/logs/qwen-vl-fp8-caption-%j.log\n"
        "#SBATCH --partition=cpu\n"
        "#SBATCH --dependency=after:7\n"
        "#SBATCH --account=physics\n"
        "\n"
        "# shellcheck disable=SC2016 # a $ in a path is a $\n"
        "set -euo pipefail\n"
        f"export QWEN_FP8_HOME={home}\n"
        f"export PYTHONPATH={shlex.quote(str(CHECKOUT))}\n"
        f"exec {shlex.quote(sys.executable)} -P -m qwen_fp8_ops caption --dataset-path images --prompt-style SHORT --job 7\n"
    )
    assert (home / "logs").is_dir(), "SLURM does not make it"


def test_an_array_and_the_job_that_puts_it_together(commands: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*CAPTION, "--array", "3", "--server-url", "http://node042:8000"]) == 0
    assert "Submitted job 101 (3 shares), and 102, which puts them together." in capsys.readouterr().out
    shares, merge = ((tmp_path / f"script-{number}").read_text() for number in (101, 102))
    assert "#SBATCH --array=1-3\n" in shares and "caption-%A_%a.log" in shares and "--dependency" not in shares
    assert shares.splitlines()[-1].endswith('--server-url http://node042:8000 --shard "$SLURM_ARRAY_TASK_ID"/3')
    assert "#SBATCH --dependency=afterany:101\n" in merge and "--array" not in merge
    assert merge.splitlines()[-1].endswith("--server-url http://node042:8000 --merge")


def test_what_an_array_would_run_makes_one_result(commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("QWEN_FP8_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "images", 10)
    with serving() as server:
        assert run([*CAPTION, "--array", "2", "--server-url", server.url]) == 0
        for number in ("1", "2"):
            _bash(tmp_path / "script-101", SLURM_ARRAY_TASK_ID=number)
        _bash(tmp_path / "script-102")
        assert server.asked == 10
        captions = json.loads((tmp_path / f"output/captions/{FOLDER}/{FOLDER}_short.json").read_text())
        assert list(captions) == [f"{number:04d}.png" for number in range(10)]
        # Other settings, and so all of it again: the job that puts the shares together must take these words, too.
        assert run([*CAPTION, "--array", "2", "--server-url", server.url, "--max-tokens", "9", "--overwrite", "--retry-failed"]) == 0
        for number in ("1", "2"):
            _bash(tmp_path / "script-103", SLURM_ARRAY_TASK_ID=number)
        _bash(tmp_path / "script-104")
        assert server.asked == 20


def _bash(script: Path, **environ: str) -> None:
    done = subprocess.run(["bash", str(script)], env={"PATH": "/usr/bin:/bin", **environ}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_dry_run_submits_nothing(commands: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*CAPTION, "--array", "2", "--job", "9", "--dry-run", "--json"]) == 0
    scripts = json.loads(capsys.readouterr().out)["scripts"]
    assert len(scripts) == 2
    assert "#SBATCH --dependency=after:9\n" in scripts[0] and "--job 9 " in scripts[0]
    assert commands.asked == [] and not (tmp_path / "home/run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*CAPTION, "--prompt-stile", "SHORT"], "--prompt-stile"),
        ([*CAPTION, "--max-tokens", "none"], "allowed is"),
        (["submit", "--caption"], "Missing option '--dataset-path'"),
        (["submit", "--qa", "--dataset-path", "x"], "Missing option '--question-path'"),
        ([*CAPTION, "--shard", "1/2"], "--array N"),
        ([*CAPTION, "--time", "00:02:00"], "leaves no time to work"),
        ([*CAPTION, "--job", "9", "--server-url", "http://node042:8000"], "both name a service"),
        ([*CAPTION, "--wait"], "are for the service"),
        (["submit", "--partition", "cpu"], "SLURM_ keys of config.env"),
        (["submit", "--dry-runn"], "No such option: --dry-runn"),
        (["submit", "now"], "No such argument: now"),
    ],
)
def test_a_mistake_is_told_at_once(commands: Commands, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert run(words) == 2
    assert said in capsys.readouterr().err
    assert not any(line.startswith("sbatch") for line in commands.asked)


def test_without_a_service_there_is_nothing_to_ask(commands: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    commands.tell("squeue", "")
    assert run(CAPTION) == 3
    said = capsys.readouterr().err
    assert "There is no service to ask" in said and "--server-url" in said


@pytest.mark.parametrize("folder", ['/data/it\'s a "set"', "/data/$HOME `id` 100%", "/data/Bücher"])
@pytest.mark.parametrize("shares", [None, 4])
def test_bash_and_shellcheck_have_nothing_against_it(tmp_path: Path, folder: str, shares: int | None) -> None:
    job = ClientJob(
        "caption", "/opt/py thon", ("caption", "--dataset-path", folder, "--prompt", "What's $this?"), Path(folder), Path(folder), Path(folder), shares=shares
    )
    script = tmp_path / "job.sbatch"
    script.write_text(client_script(job))
    for words in (["bash", "-n"], [str(SHELLCHECK)]):
        done = subprocess.run([*words, str(script)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
    assert shlex.split(client_script(job).splitlines()[-1])[:9] == [
        "exec",
        "/opt/py thon",
        "-P",
        "-m",
        "qwen_fp8_ops",
        "caption",
        "--dataset-path",
        folder,
        "--prompt",
    ]
