"""The matrix as data: every child, every signal, every moment, and what must come of it."""

from __future__ import annotations

import itertools
import signal
from dataclasses import dataclass
from enum import StrEnum

VICTIMS = ("API server", "core", "media server", "supervisor")
SIGNALS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGSEGV)
MOMENTS = ("loading", "idle", "under load", "draining")


class Then(StrEnum):
    """What becomes of the service."""

    READY = "ready again"
    STOPPED = "stopped"
    TIMED_OUT = "failed: start-timeout"
    UNWATCHED = "served on, unwatched; ready after another start"
    SWEPT = "swept by the stop"
    WAITS = "served on; went on after SIGCONT"


@dataclass(frozen=True)
class Fault:
    victim: str
    signal: signal.Signals
    moment: str

    def __str__(self) -> str:
        return f"{self.victim}, {self.signal.name}, {self.moment}"

    @property
    def then(self) -> Then:
        if self.victim == "supervisor":
            return self._of_the_supervisor()
        if self.moment == "draining":
            return Then.STOPPED
        if self.moment == "loading" and self.signal == signal.SIGSTOP and self.victim != "media server":
            return Then.TIMED_OUT  # nobody can tell a long load from a stopped one
        return Then.READY

    def _of_the_supervisor(self) -> Then:
        if self.signal == signal.SIGTERM:
            return Then.STOPPED
        if self.signal == signal.SIGSTOP:
            return Then.WAITS
        return Then.UNWATCHED if self.moment in ("idle", "under load") else Then.SWEPT

    @property
    def hangs(self) -> bool:
        """Is it for the hang to be noticed?"""
        return self.signal == signal.SIGSTOP and self.then is Then.READY

    @property
    def engine_serves_on(self) -> bool:
        """Then not one request may be lost."""
        return self.victim == "media server" or self.then in (Then.UNWATCHED, Then.WAITS) or (self.victim == "supervisor" and self.moment == "under load")


FAULTS = tuple(Fault(*parts) for parts in itertools.product(VICTIMS, SIGNALS, MOMENTS))

SAMPLE = frozenset(
    {
        Fault("API server", signal.SIGKILL, "under load"),
        Fault("core", signal.SIGSTOP, "draining"),
        Fault("media server", signal.SIGSEGV, "idle"),
        Fault("supervisor", signal.SIGTERM, "loading"),
    }
)
"""For every `make test`: each victim, each signal and each moment once."""
