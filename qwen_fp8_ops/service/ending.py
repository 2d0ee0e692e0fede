"""How programs are ended: running requests finish, each program gets its own time, and what stays is killed, or named."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qwen_fp8_ops.outside import clock, process
from qwen_fp8_ops.outside.process import Identity
from qwen_fp8_ops.service import ladder
from qwen_fp8_ops.service.child import Child, Life
from qwen_fp8_ops.service.drain import requests_running
from qwen_fp8_ops.service.talk import Talk
from qwen_fp8_ops.service.wall_time import WallTime

NEVER_READY_SECONDS = 5
"""A program that never served has nothing to finish."""


class Ending:
    """``at_once`` tells whether somebody asked a second time: then nothing is waited for. ``me`` is the supervisor."""

    def __init__(self, me: Identity, wall_time: WallTime, talk: Talk, pause: ladder.Pause, at_once: Callable[[], bool]) -> None:
        self._me = me
        self._wall_time = wall_time
        self._talk = talk
        self._pause = pause
        self._at_once = at_once

    def let_finish(self, children: Sequence[Child], key: str, limit_seconds: float) -> None:
        """Wait for the requests that run; the gate admits no others."""
        began = clock.monotonic()
        while clock.monotonic() < self._wall_time.drain_until(began, limit_seconds) and not self._at_once():
            running = requests_running(children, key)
            if not running:
                return
            self._talk.progress(f"waiting for {running} running request{'s' if running > 1 else ''}")
            self._pause(0.2)

    def end(self, child: Child) -> list[Identity]:
        """What of it could not be ended is returned."""
        child.ended()
        child.life = Life.STOPPED
        if child.identity is None or child.popen is None:
            return []
        own = child.program.stop_seconds
        grace = 0 if self._at_once() else self._wall_time.grace_seconds(own if child.was_ready else min(own, NEVER_READY_SECONDS))
        left = ladder.end(child.identity, grace_seconds=grace, pause=self._pause)
        child.remove_traces()
        return left

    def end_strays(self, children: Sequence[Child]) -> list[Identity]:
        """Children of ours that left their session; the kernel gave them to us when their parent died."""
        known = {child.popen.pid for child in children if child.popen}
        strays = [identity for pid in process.children_of(self._me.pid) if pid not in known and (identity := process.identify(pid))]
        return ladder.kill(strays, self._pause)
