"""The batch script: what it says, and that bash and shellcheck have nothing against it for any settings."""

from __future__ import annotations

import itertools
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import ConfigError
from qwen_fp8_ops.slurm.script import Submission, notice_seconds, quoted, sbatch_script
from qwen_fp8_ops.slurm.submit import refuse_impossible

SHELLCHECK = Path(sys.executable).with_name("shellcheck")
HOMES = ["/home/ada/qwen", "/home/ada/it's a run", '/data/"q" #1 $HOME `id` 100%', "/data/Bücher"]
ARGUMENTS = [(), ("--config", "/home/ada/my config.env", "--profile", "fast", "--set", "VLLM_EXTRA_ARGS=--a 'b c' --d=$e", "--set", "GPU_NAME=it's")]
SETTINGS = [
    (),
    ("SLURM_PARTITION=gpu-h100", "SLURM_AT_END=requeue"),
    ("GPU_COUNT=0", "TENSOR_PARALLEL_SIZE=1", "SLURM_AT_END=chain", "SLURM_TIME=2-00"),
    ("SLURM_EXTRA_ARGS=--account=physics '--comment=a b' --constraint='[h100|h200]'",),
]


def script(*overrides: str, home: str = HOMES[0], arguments: tuple[str, ...] = (), checkout: Path | None = None) -> str:
    return sbatch_script(Submission(load(overrides=overrides).settings, RunPaths(Path(home)), "/opt/py thon/bin/python", checkout, arguments))


def test_the_whole_of_it() -> None:
    assert script("SLURM_PARTITION=gpu", arguments=("--profile", "fast"), checkout=Path("/opt/qwen")) == (
        "#!/bin/bash\n"
        "#SBATCH --job-name=qwen-vl-fp8\n"
        "#SBATCH --comment=qwen-fp8:/home/ada/qwen\n"
        "#SBATCH --nodes=1\n"
        "#SBATCH --ntasks=1\n"
        "#SBATCH --cpus-per-task=32\n"
        "#SBATCH --mem=320G\n"
        "#SBATCH --time=24:00:00\n"
        "#SBATCH --signal=B:USR1@180\n"
        "#SBATCH --chdir=/home/ada/qwen\n"
        "#SBATCH --output=/home/ada/qwen/logs/slurm-%j.log\n"
        "#SBATCH --open-mode=append\n"
        "#SBATCH --no-requeue\n"
        "#SBATCH --partition=gpu\n"
        "#SBATCH --gres=gpu:8\n"
        "\n"
        "# shellcheck disable=SC2016 # a $ in a path is a $\n"
        "set -euo pipefail\n"
        "trap '' USR1 # until the supervisor listens; it knows the end of the wall time by itself\n"
        "export QWEN_FP8_HOME=/home/ada/qwen\n"
        "export PYTHONPATH=/opt/qwen\n"
        "exec '/opt/py thon/bin/python' -P -m qwen_fp8_ops --profile fast start\n"
    )


@pytest.mark.parametrize(("settings", "home", "arguments"), list(itertools.product(SETTINGS, HOMES, ARGUMENTS)))
def test_bash_and_shellcheck_accept_it(settings: tuple[str, ...], home: str, arguments: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "job.sbatch"
    file.write_text(script(*settings, home=home, arguments=arguments, checkout=Path(home)))
    for words in (["bash", "-n"], [str(SHELLCHECK)]):
        done = subprocess.run([*words, str(file)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("home", HOMES)
def test_what_it_runs_gets_its_words_whole(home: str, tmp_path: Path) -> None:
    show = tmp_path / "show it"
    show.write_text('#!/bin/sh\nprintf \'%s\\n\' "$QWEN_FP8_HOME" "$@"\n')
    show.chmod(0o755)
    text = sbatch_script(Submission(load().settings, RunPaths(Path(home)), str(show), None, ARGUMENTS[1]))
    done = subprocess.run(["bash"], input=text, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [home, "-P", "-m", "qwen_fp8_ops", *ARGUMENTS[1], "start"]


def test_without_gpus_none_are_asked_for() -> None:
    assert "--gres" not in script("GPU_COUNT=0", "TENSOR_PARALLEL_SIZE=1")


@pytest.mark.parametrize(("at_end", "option"), [("stop", "--no-requeue"), ("requeue", "--requeue"), ("chain", "--requeue")])
def test_only_what_is_to_go_on_survives_its_node(at_end: str, option: str) -> None:
    assert f"#SBATCH {option}\n" in script(f"SLURM_AT_END={at_end}")


def test_the_sites_own_options_come_last() -> None:
    lines = [line for line in script(*SETTINGS[3]).splitlines() if line.startswith("#SBATCH")]
    assert lines[-3:] == ["#SBATCH --account=physics", "#SBATCH '--comment=a b'", "#SBATCH '--constraint=[h100|h200]'"]


def test_a_percent_sign_in_a_folder_is_no_pattern() -> None:
    assert "--output=/data/100%%/logs/slurm-%j.log" in script(home="/data/100%")


@pytest.mark.parametrize("text", ["--a=b", "--a=b c", "--a=it's", '--a="x" it\'s', "--a=back\\slash"])
def test_a_quoted_option_is_one_word(text: str) -> None:
    assert shlex.split(quoted(text)) == [text]


def test_the_notice_leaves_time_for_the_drain_and_the_stop() -> None:
    assert notice_seconds(load(overrides=["DRAIN_TIMEOUT=600"]).settings) == 660


@pytest.mark.parametrize("time", ["2", "3", "0:30", "00:03:00"])
def test_a_wall_time_without_time_to_serve_is_refused(time: str) -> None:
    job = Submission(load(overrides=[f"SLURM_TIME={time}"]).settings, RunPaths(Path("/home")), "", None, ())
    with pytest.raises(ConfigError, match=f"SLURM_TIME={time} leaves no time to serve: 180 s before its end"):
        refuse_impossible(job)


def test_a_folder_that_slurm_cannot_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="no log into"):
        refuse_impossible(Submission(load().settings, RunPaths(Path("/data/back\\slash")), "", None, ()))
