"""What is written down of a hung program before it is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_fp8_ops.engine.stack_signal import STACK_SIGNAL
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import process
from qwen_fp8_ops.outside.process import Identity
from qwen_fp8_ops.service.stacks import dump
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
HANGING = """
import time
from qwen_fp8_ops.engine.stack_signal import answer_stack_signal
answer_stack_signal()
def where_it_hangs():
    time.sleep(3600)
where_it_hangs()
"""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    children: list[subprocess.Popen[bytes]] = []
    yield children
    for child in children:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def start(children: list[subprocess.Popen[bytes]], log: Path, *argv: str, path: str = str(ROOT)) -> Identity:
    with log.open("ab") as output:
        child = subprocess.Popen([sys.executable, *argv], stdout=output, stderr=output, env={**os.environ, "PYTHONPATH": path}, start_new_session=True)
    children.append(child)
    found = process.identify(child.pid)
    assert found
    return found


def pause(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def test_a_process_that_answers_the_signal_writes_where_it_is_and_goes_on(tmp_path: Path, started: list[subprocess.Popen[bytes]]) -> None:
    log, into = tmp_path / "service.log", tmp_path / "stacks-engine0.log"
    member = start(started, log, "-c", HANGING)
    wait_for(lambda: process.catches(member.pid, STACK_SIGNAL), "it listens")
    dump([member], log, into, pause)
    text = into.read_text()
    assert "where_it_hangs" in text and f"=== pid {member.pid}: " in text and "state: S (sleeping)" in text
    assert member.alive
    dump([member], log, into, pause)
    assert "where_it_hangs" in into.with_name(f"{into.name}.1").read_text()


def test_a_process_that_would_die_of_the_signal_is_spared(tmp_path: Path, started: list[subprocess.Popen[bytes]]) -> None:
    log, into = tmp_path / "service.log", tmp_path / "stacks-engine0.log"
    member = start(started, log, "-c", "import time; time.sleep(3600)")
    dump([member], log, into, pause)
    assert member.alive
    assert "could not be read" in into.read_text()


def test_py_spy_is_believed_only_when_it_was_allowed_to_look(tmp_path: Path, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    log, into, spy = tmp_path / "service.log", tmp_path / "stacks-engine0.log", tmp_path / "bin" / "py-spy"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    member = process.identify(os.getpid())
    assert member
    spy.parent.mkdir()
    for says, told in (('Thread 1 (idle): "MainThread"\n    in_a_driver (cuda.py:1)', "in_a_driver"), ("Error: Permission Denied", "could not be read")):
        spy.write_text(f"#!/bin/sh\n[ \"$1 $2 $3 $4\" = 'dump --nonblocking --pid {member.pid}' ] || exit 2\ncat <<'END'\n{says}\nEND\n")
        spy.chmod(0o755)
        dump([member], log, into, pause)
        assert told in into.read_text()


def test_a_folder_that_refuses_the_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(OpsError, match="Cannot write"):
        dump([], tmp_path / "service.log", tmp_path / "gone" / "stacks.log", pause)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_every_process_of_a_gpu_engine_answers_the_signal(tmp_path: Path, started: list[subprocess.Popen[bytes]], method: str) -> None:
    """vLLM itself cannot run here: its command is played by a module of that name that starts a child as it does."""
    package = tmp_path / "vllm" / "entrypoints" / "cli"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    (package / "main.py").write_text(
        "import multiprocessing, sys, time\n"
        "def main():\n"
        "    assert sys.argv[1:] == ['serve', 'MODEL']\n"
        f"    multiprocessing.get_context('{method}').Process(target=time.sleep, args=(3600,)).start()\n"
        "    time.sleep(3600)\n"
    )
    log = tmp_path / "service.log"
    leader = start(started, log, "-W", "ignore", "-P", "-m", "qwen_fp8_ops.engine.gpu_launcher", "serve", "MODEL", path=f"{tmp_path}:{ROOT}")

    def ready() -> list[Identity]:
        # A helper of multiprocessing is of the session as well, and has nothing of ours.
        found = [member for member in process.session_members(leader) if b"resource_tracker" not in Path(f"/proc/{member.pid}/cmdline").read_bytes()]
        return found if len(found) == 2 and all(process.catches(member.pid, STACK_SIGNAL) for member in found) else []

    members = wait_for(ready, f"both processes listen: {log.read_text()}")
    dump(members, log, tmp_path / "stacks.log", pause)
    assert (tmp_path / "stacks.log").read_text().count("most recent call first") == 2
    assert all(member.alive for member in members)
