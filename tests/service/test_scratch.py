"""Where programs put their temporary files, and what becomes of them and of shared memory when programs are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from qwen_fp8_ops.outside import process
from qwen_fp8_ops.service import ladder, scratch

LEAVES_SHARED_MEMORY = """
import sys, time
from multiprocessing import shared_memory
ring = shared_memory.SharedMemory(create=True, size=4096)
print(ring.name, flush=True)
time.sleep(600)
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "it's a run").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    return tmp_path / "it's a run"


def test_one_private_folder_a_run_that_goes_with_it(run: Path) -> None:
    folder = Path(scratch.environment(run)["TMPDIR"])
    assert folder.parent == run.parent / "temporary" and folder.stat().st_mode & 0o777 == 0o700
    assert scratch.environment(run)["TMPDIR"] == str(folder), "all programs of the run share it"
    (folder / "left").write_text("by a program that was killed")
    scratch.clear(run)
    assert not folder.exists() and os.listdir(run) == []
    scratch.clear(run)


def test_compiled_kernels_stay_where_they_were(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Path(scratch.environment(run)["TORCHINDUCTOR_CACHE_DIR"]).parent == run.parent / "temporary"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/theirs")
    assert "TORCHINDUCTOR_CACHE_DIR" not in scratch.environment(run)


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_a_link_to_somewhere_else_is_not_followed(run: Path, mode: int) -> None:
    name = "precious" if mode == 0o700 else f"{scratch.PREFIX}open-to-others"
    precious = run.parent / name
    precious.mkdir(mode=mode)
    (run / scratch.LINK).symlink_to(precious)
    assert scratch.environment(run)["TMPDIR"] != str(precious)
    (run / scratch.LINK).unlink()
    (run / scratch.LINK).symlink_to(precious)
    scratch.clear(run)
    assert precious.exists()


def test_a_run_folder_that_refuses_costs_only_the_folder(run: Path) -> None:
    run.rmdir()
    assert scratch.environment(run) == {}
    assert os.listdir(run.parent / "temporary") == []


def test_shared_memory_of_a_killed_session_is_given_back() -> None:
    """Its resource tracker is a member of the session and would be killed with it."""
    with subprocess.Popen([sys.executable, "-c", LEAVES_SHARED_MEMORY], stdout=subprocess.PIPE, start_new_session=True) as running:
        assert running.stdout
        segment = Path("/dev/shm") / running.stdout.readline().decode().strip().lstrip("/")
        assert segment.exists()
        leader = process.identify(running.pid)
        assert leader

        def reap(seconds: float) -> bool:
            time.sleep(seconds)
            running.poll()
            return False

        members = process.session_members(leader)
        assert len(members) == 2, "the program and its tracker"
        assert ladder.kill(members, reap) == []
        assert running.returncode == -signal.SIGKILL
    assert not segment.exists()
