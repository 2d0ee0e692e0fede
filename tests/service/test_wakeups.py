"""Who collects which process that ended: the loop its programs and their orphans, a thread what it ran itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from qwen_fp8_ops.service.wakeups import reap

Process = subprocess.Popen[bytes]


@pytest.fixture
def ended() -> Iterator[list[Process]]:
    """A program of ours, a stranger of another session, and what a thread ran; all have ended with code 3, and nobody knows it yet."""
    command = [sys.executable, "-S", "-c", "raise SystemExit(3)"]
    processes = [subprocess.Popen(command, start_new_session=alone) for alone in (False, True, True)]
    for process in processes:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    yield processes
    for process in processes:
        process.wait()


def test_what_a_thread_ran_is_left_to_it_with_its_code(ended: list[Process]) -> None:
    of_a_thread, _, _ = ended
    reap(())
    assert of_a_thread.wait() == 3, "of one that was collected by others it would be 0"


def test_programs_and_orphans_are_collected_whoever_ended_before_them(ended: list[Process]) -> None:
    of_a_thread, program, orphan = ended
    reap([program])
    assert program.returncode == 3
    of_a_thread.wait()
    reap([program])
    with pytest.raises(ChildProcessError):
        os.waitid(os.P_PID, orphan.pid, os.WEXITED | os.WNOHANG)


def test_nothing_that_ended_is_nothing_to_do() -> None:
    reap(())
