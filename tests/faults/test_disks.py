"""Disks that are full, and folders that go away.

A full disk costs what is written to it: log lines, audit lines, the record of the state. It never costs the service.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.load import Load
from tests.faults.service import FaultyService
from tests.faults.table import Row
from tests.waiting import wait_for

pytestmark = pytest.mark.faults


@contextlib.contextmanager
def small_disk(folder: Path, *options: str) -> Iterator[Path]:
    """A file system of its own with just the room that the preflight wants; it goes with all that is on it."""
    if os.getuid() != 0:
        pytest.skip("only root may mount the small file system that is filled here")
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(("size=24m", *options)), "tmpfs", str(folder)], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=60)


def fill(folder: Path) -> Path:
    """A file that takes every byte there is."""
    file = folder / "filler"
    with file.open("ab", buffering=0) as filler:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    filler.write(b"x" * size)
    return file


def take_all_names(folder: Path) -> Path:
    """No file can be made any more, as where a quota counts files."""
    names = folder / "names"
    names.mkdir()
    number = 0
    try:
        while True:
            number += 1
            (names / str(number)).touch()
    except OSError:
        return names


def kill_and_wait(service: FaultyService, victim: str = "API server") -> None:
    """Kill it, and wait for another that answers. The record of the state may not be to be had."""
    pid, core = service.victim(victim), service.core()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: service.core() not in (0, core) and service.answers(), "another engine answers", 120)


@pytest.mark.parametrize("full", [fill, take_all_names], ids=["of_bytes", "of_files"])
def test_logs_full(service: FaultyService, row: Row, full: object) -> None:
    row.fault, row.ended = (
        f"logs/ full {'of bytes' if full is fill else 'of files'}, API server killed",
        "ready again; lines are written again when there is room",
    )
    with small_disk(service.paths.logs, *(["nr_inodes=40"] if full is take_all_names else [])), contextlib.closing(service):
        service.started()
        service.watch.look()
        filler = full(service.paths.logs)  # type: ignore[operator]
        with Load(service.port) as load:
            wait_for(lambda: load.whole > 4, "the load flows")
            service.watch.look()
            kill_and_wait(service)
        row.count(load)
        assert load.silent == 0, load.garbled
        service.watch.look()
        shutil.rmtree(filler) if filler.is_dir() else filler.unlink()
        before = audit_lines(service)
        assert service.answers()
        wait_for(lambda: service.answers() and audit_lines(service) > before, "audit lines are written again")
        service.stop()
        assert service.left() == []


def audit_lines(service: FaultyService) -> int:
    return len(service.paths.audit.read_bytes().splitlines()) if service.paths.audit.exists() else 0


def test_run_full(service: FaultyService, row: Row) -> None:
    row.fault, row.ended = "run/ full, API server killed", "answers again; the record is right when there is room"
    with small_disk(service.paths.run), contextlib.closing(service):
        service.started()
        service.watch.look()
        filler = fill(service.paths.run)
        with Load(service.port) as load:
            wait_for(lambda: load.whole > 4, "the load flows")
            kill_and_wait(service)
        row.count(load)
        assert load.silent == 0, load.garbled
        service.watch.look()
        filler.unlink()
        core = service.core()
        wait_for(lambda: service.status()["state"] == "ready" and service.recorded()["restarts"] == 1, "the record is right again")
        assert service.core() == core
        service.stop()
        assert service.left() == []


def test_run_full_and_stop(service: FaultyService, row: Row) -> None:
    row.fault, row.ended = "run/ full, then stop", "drained, nothing left"
    with small_disk(service.paths.run), contextlib.closing(service):
        service.started()
        fill(service.paths.run)
        service.stop()
        (service.paths.run / "filler").unlink()
        assert service.left() == []


def test_run_full_and_the_supervisor_killed(service: FaultyService, row: Row) -> None:
    row.fault, row.ended = "run/ full, supervisor killed; then stop", "nothing left"
    with small_disk(service.paths.run), contextlib.closing(service):
        service.started()
        service.watch.look()
        fill(service.paths.run)
        assert service.process
        service.process.kill()
        service.process.communicate()
        service.stop()
        (service.paths.run / "filler").unlink()
        assert service.left() == []


def test_run_full_at_the_start(service: FaultyService, row: Row) -> None:
    row.fault, row.ended = "run/ full, then start", "refused: cannot-write"
    with small_disk(service.paths.run), contextlib.closing(service):
        filler = fill(service.paths.run)
        service.start()
        code, said = service.ended()
        assert code == 1
        assert "Error: Cannot write" in said and "No space left on device" in said and "Traceback" not in said
        filler.unlink()
        assert service.left() == []


@pytest.mark.sample
def test_log_folder_removed(service: FaultyService, row: Row) -> None:
    row.fault, row.ended = "logs/ removed, API server killed", "ready again; the folder is there again"
    service.started()
    service.watch.look()
    shutil.rmtree(service.paths.logs)
    wait_for(lambda: service.answers() and service.paths.audit.exists(), "the audit has a file again")
    kill_and_wait(service)
    assert service.paths.service_log.exists()
    service.stop()
    assert service.left() == []


def test_run_folder_removed(service: FaultyService, row: Row) -> None:
    row.fault, row.ended = "run/ removed, media server killed", "serves on; SIGTERM ends it, nothing left"
    service.started()
    service.watch.look()
    media = service.victim("media server")
    shutil.rmtree(service.paths.run.rename(service.paths.home / "gone"))
    os.kill(media, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{media}").exists(), "it is buried")
    time.sleep(2)
    assert service.answers()
    service.signal(signal.SIGTERM)
    code, said = service.ended()
    assert code == 0 and "Traceback" not in said, said
    assert service.left() == []
