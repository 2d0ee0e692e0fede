"""A terminal that goes away, and readers that hang up."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.service import FaultyService
from tests.faults.table import Row
from tests.waiting import wait_for

pytestmark = pytest.mark.faults

LEADER = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[1] == "nohup" else signal.SIG_DFL)
os.execv(sys.argv[2], sys.argv[2:])
"""


@contextmanager
def on_a_terminal(service: FaultyService, how: str) -> Iterator[int]:
    """The supervisor as the leader of a terminal's session, as a login shell would be; gives the end that the terminal emulator holds."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, b"\x18\x00\x50\x00\x00\x00\x00\x00")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm"}
    command = [sys.executable, "-c", LEADER, how, *service.command()]
    service.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True, text=True)
    os.close(slave)
    os.set_blocking(master, False)
    try:
        yield master
    finally:
        try:
            os.close(master)
        except OSError:
            pass  # the test did


def wait_state(service: FaultyService, state: str, master: int) -> None:
    """Meanwhile read what the terminal shows, or the supervisor would wait for it."""

    def look() -> bool:
        try:
            while os.read(master, 65536):
                pass
        except OSError:
            pass
        return service.status()["state"] == state

    wait_for(look, f"the service is {state}", 120)


@pytest.mark.parametrize("moment", ["starting", pytest.param("ready", marks=pytest.mark.sample)])
def test_the_terminal_is_closed(service: FaultyService, moment: str, row: Row) -> None:
    row.fault, row.ended = f"the terminal is closed (SIGHUP), while {moment}", "stopped, nothing left"
    if moment == "starting":
        service.behave(ready_after=600)
    with on_a_terminal(service, "") as master:
        wait_state(service, moment, master)
        wait_for(service.core, "the core is begun")
        service.watch.look()
        os.close(master)
    assert service.process
    code = service.process.wait(timeout=120)
    assert service.status()["state"] == "stopped"
    assert code == (0 if moment == "ready" else 130)
    assert service.left() == []


def test_the_terminal_is_closed_under_nohup(service: FaultyService, row: Row) -> None:
    row.fault, row.ended = "the terminal is closed under nohup, media server killed", "serves on, heals, stops as ever"
    with on_a_terminal(service, "nohup") as master:
        wait_state(service, "ready", master)
        os.close(master)
    heals_and_stops(service)


def test_the_reader_of_its_words_has_gone(service: FaultyService, row: Row) -> None:
    row.fault, row.ended = "the reader of stderr has gone (a broken pipe), media server killed", "serves on, heals, stops as ever"
    service.started()
    assert service.process and service.process.stderr
    service.process.stderr.close()
    heals_and_stops(service)


def heals_and_stops(service: FaultyService) -> None:
    """It has something to say, and nobody to say it to."""
    service.watch.look()
    media = service.victim("media server")
    os.kill(media, signal.SIGKILL)
    wait_for(lambda: service.replaced("media", media), "a new media server serves")
    service.wait_answers()
    service.watch.look()
    service.stop()
    assert service.process and service.process.returncode == 0
    assert service.left() == []
