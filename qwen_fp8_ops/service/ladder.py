"""How a child is ended: ask, wait, kill, and look whether anything of it is left.

    SIGTERM to the program ─> its own time ─> SIGKILL to all of its session ─> nothing left, or named
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable

from qwen_fp8_ops.outside import clock, process
from qwen_fp8_ops.outside.process import Identity

KILL_SECONDS = 10.0
"""After SIGKILL a process is gone at once, unless it hangs in the kernel (a GPU driver call, a dead NFS server)."""

TIDYING = "from multiprocessing.resource_tracker import main"
"""In the command of Python's resource tracker: when the last process that it serves is gone, it removes the shared memory that they
left, and ends. Killed with them, each crash of an engine would leave its message rings in /dev/shm, some hundred MB."""

TIDY_SECONDS = 5.0

Pause = Callable[[float], bool]
"""Waits up to so many seconds, meanwhile reaping children; True when the wait should be cut short (a second Ctrl+C)."""


def end(leader: Identity, *, grace_seconds: float, pause: Pause) -> list[Identity]:
    """End the session that ``leader`` began; what could not be ended is returned."""
    process.send(leader, signal.SIGTERM)
    _wait_until_gone([leader], grace_seconds, pause)
    return kill(process.session_members(leader), pause)


def kill(members: Iterable[Identity], pause: Pause) -> list[Identity]:
    """SIGKILL; returns those still there after ``KILL_SECONDS``. Those that tidy up after the others get the time to do it."""
    members = list(members)
    tidying = [member for member in members if TIDYING in process.command_line(member.pid)]
    left = _kill_at_once([member for member in members if member not in tidying], pause)
    _wait_until_dead(tidying, TIDY_SECONDS, pause)
    return left + _kill_at_once(tidying, pause)


def _kill_at_once(members: Iterable[Identity], pause: Pause) -> list[Identity]:
    return _wait_until_dead([member for member in members if process.send(member, signal.SIGKILL)], KILL_SECONDS, pause)


def _wait_until_dead(left: list[Identity], seconds: float, pause: Pause) -> list[Identity]:
    deadline = clock.monotonic() + seconds
    while (left := [member for member in left if member.alive]) and clock.monotonic() < deadline:
        pause(0.05)
    return left


def _wait_until_gone(leaders: Iterable[Identity], seconds: float, pause: Pause) -> None:
    """The whole session gets the time, not only its leader: workers end after the API server."""
    deadline = clock.monotonic() + seconds
    while clock.monotonic() < deadline:
        if not any(process.session_members(leader) for leader in leaders) or pause(0.05):
            return
