from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import lock
from qwen_fp8_ops.outside.process import Identity, identify


@pytest.fixture
def me() -> Identity:
    found = identify(os.getpid())
    assert found
    return found


def gone(me: Identity) -> Identity:
    """A process of this host that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    identity = identify(ended.pid)
    ended.wait()
    assert identity
    return identity


def test_taken_and_given_back(tmp_path: Path, me: Identity) -> None:
    path = tmp_path / "lock"
    assert lock.acquire(path, me) is None
    assert lock.holder(path) == me
    lock.release(path, me)
    assert lock.holder(path) is None


def test_living_holder_is_named(tmp_path: Path, me: Identity) -> None:
    path = tmp_path / "lock"
    lock.acquire(path, me)
    assert lock.acquire(path, replace(me, pid=1, start_ticks=1)) == me


def test_lock_of_a_gone_process_is_cleared(tmp_path: Path, me: Identity) -> None:
    path = tmp_path / "lock"
    lock.acquire(path, gone(me))
    assert lock.acquire(path, me) is None
    assert lock.holder(path) == me


def test_reused_pid_is_not_taken_for_the_holder(tmp_path: Path, me: Identity) -> None:
    path = tmp_path / "lock"
    path.write_text(json.dumps(replace(me, start_ticks=me.start_ticks - 1).as_json()))
    assert lock.acquire(path, me) is None


def test_lock_of_an_earlier_boot_is_cleared(tmp_path: Path, me: Identity) -> None:
    path = tmp_path / "lock"
    path.write_text(json.dumps(replace(me, boot_id="another").as_json()))
    assert lock.acquire(path, me) is None


def test_lock_of_another_host_is_not_ours_to_judge(tmp_path: Path, me: Identity) -> None:
    path = tmp_path / "lock"
    other = replace(gone(me), host="node7", job_id="42")
    path.write_text(json.dumps(other.as_json()))
    assert lock.acquire(path, me) == other
    assert lock.holder(path) == other


def test_damaged_lock_is_told_and_not_removed(tmp_path: Path, me: Identity) -> None:
    path = tmp_path / "lock"
    path.write_text("{}")
    with pytest.raises(OpsError, match="names no process"):
        lock.acquire(path, me)
    assert path.exists()


def test_release_leaves_anothers_lock(tmp_path: Path, me: Identity) -> None:
    path = tmp_path / "lock"
    lock.acquire(path, me)
    lock.release(path, replace(me, start_ticks=1))
    assert lock.holder(path) == me


def test_of_many_at_once_one_wins_also_over_a_stale_lock(tmp_path: Path, me: Identity) -> None:
    path = tmp_path / "lock"
    lock.acquire(path, gone(me))
    program = (
        "import os, sys, time; from pathlib import Path\n"
        "from qwen_fp8_ops.outside.process import identify; from qwen_fp8_ops.outside import lock\n"
        "sys.stdin.readline()\n"
        "print('won' if lock.acquire(Path(sys.argv[1]), identify(os.getpid())) is None else 'lost', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    racers = [subprocess.Popen([sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    answers = [racer.stdout.readline().strip() for racer in racers if racer.stdout]
    for racer in racers:
        racer.communicate("end\n", timeout=30)
    assert sorted(answers) == ["lost"] * 5 + ["won"]
