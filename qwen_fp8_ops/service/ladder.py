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

Pause = Callable[[float], bool]
"""Waits up to so many seconds, meanwhile reaping children; True when the wait should be cut short (a second Ctrl+C)."""


def end(leader: Identity, *, grace_seconds: float, pause: Pause) -> list[Identity]:
    """End the session that ``leader`` began; what could not be ended is returned."""
    process.send(leader, signal.SIGTERM)
    _wait_until_gone([leader], grace_seconds, pause)
    return kill(process.session_members(leader), pause)


def kill(members: Iterable[Identity], pause: Pause) -> list[Identity]:
    """SIGKILL; returns those still there after ``KILL_SECONDS``."""
    left = [member for member in members if process.send(member, signal.SIGKILL)]
    deadline = clock.monotonic() + KILL_SECONDS
    while (left := [member for member in left if member.alive]) and clock.monotonic() < deadline:
        pause(0.05)
    return left


def _wait_until_gone(leaders: Iterable[Identity], seconds: float, pause: Pause) -> None:
    """The whole session gets the time, not only its leader: workers end after the API server."""
    deadline = clock.monotonic() + seconds
    while clock.monotonic() < deadline:
        if not any(process.session_members(leader) for leader in leaders) or pause(0.05):
            return
