"""What a supervisor that was killed left behind, and the start after it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from qwen_fp8_ops.outside import net, process
from qwen_fp8_ops.outside.process import Identity
from qwen_fp8_ops.service import orphans
from tests.service.harness import StandInService
from tests.waiting import wait_for


@contextmanager
def leftover(service: StandInService) -> Iterator[Identity]:
    """A process that bears the run's mark."""
    service.paths.run.mkdir()
    argv, env = [sys.executable, "-c", "import time; time.sleep(600)"], {"QWEN_FP8_RUN": str(service.paths.run)}
    with subprocess.Popen(argv, env=env) as running:
        identity = process.identify(running.pid)
        assert identity
        wait_for(lambda: orphans.is_marked(running.pid, service.paths), "it is begun")
        try:
            yield identity
        finally:
            running.kill()


@contextmanager
def port_held_by_nobody(port: int) -> Iterator[Callable[[], None]]:
    """A listening socket on its way from one process to another: no process has it, as while the kernel closes one. Gives what ends it."""
    here, there = socket.socketpair()
    with here, there:
        with socket.create_server(("127.0.0.1", port)) as server:
            socket.send_fds(here, [b"x"], [server.fileno()])

        def close() -> None:
            there.close()

        yield close


def pauses_after(gone: Identity, monkeypatch: pytest.MonkeyPatch, then: Callable[[], None]) -> list[float]:
    """The waits that begin when the process is gone already; each does ``then`` first."""
    found: list[float] = []
    sleep = orphans._sleep

    def pause(seconds: float) -> bool:
        if not gone.alive:
            found.append(seconds)
            then()
        return sleep(seconds)

    monkeypatch.setattr(orphans, "_sleep", pause)
    return found


@pytest.mark.parametrize("behaviour", [{}, {"first_thread_ends": True}], ids=["living", "half dead"])
def test_the_start_after_a_killed_supervisor_ends_its_programs_and_serves(service: StandInService, behaviour: dict[str, bool]) -> None:
    service.behave(**behaviour)
    service.started()
    engine, media = service.pid("engine0"), service.pid("media")
    assert service.process
    service.process.kill()
    service.process.communicate()
    assert not net.can_bind("127.0.0.1", service.settings["PORT"])
    service.behave()
    service.started()
    assert service.pid("engine0") != engine
    assert service.pid("media") != media
    service.signal(signal.SIGTERM)
    code, said = service.ended()
    assert code == 0
    assert "Ending what an earlier run left behind: " in said
    assert f"{engine} (" in said


def test_a_port_that_the_kernel_is_closing_is_waited_for(service: StandInService, monkeypatch: pytest.MonkeyPatch) -> None:
    port = service.settings["PORT"]
    with leftover(service) as left, port_held_by_nobody(port) as close:
        assert not net.can_bind("127.0.0.1", port)
        pauses = pauses_after(left, monkeypatch, then=close)
        orphans.make_way(service.plan(), service.paths, print)
        assert not left.alive
        assert net.can_bind("127.0.0.1", port)
        assert len(pauses) == 1


def test_a_port_that_stays_taken_is_left_to_the_preflight(service: StandInService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "PORTS_SECONDS", 3.0)  # a busy machine takes its time to look once
    with leftover(service) as left, port_held_by_nobody(service.settings["PORT"]):
        pauses = pauses_after(left, monkeypatch, then=lambda: None)
        orphans.make_way(service.plan(), service.paths, print)
        assert pauses


def test_a_port_of_a_living_process_is_not_waited_for(service: StandInService, monkeypatch: pytest.MonkeyPatch) -> None:
    port = service.settings["PORT"]
    with leftover(service) as left, socket.create_server(("127.0.0.1", port)):
        pauses = pauses_after(left, monkeypatch, then=lambda: None)
        orphans.make_way(service.plan(), service.paths, print)
        assert not left.alive
        assert pauses == []
        owner = net.port_owner("127.0.0.1", port)
        assert owner
        assert owner.pid == os.getpid()


def test_where_nothing_was_left_no_port_is_waited_for(service: StandInService, monkeypatch: pytest.MonkeyPatch) -> None:
    with leftover(service) as left:
        process.send(left, signal.SIGKILL)
        wait_for(lambda: not left.alive, "it is gone")
        with port_held_by_nobody(service.settings["PORT"]):
            pauses = pauses_after(left, monkeypatch, then=lambda: None)
            orphans.make_way(service.plan(), service.paths, print)
            assert pauses == []
