"""When to start a dead program again, and when to stop trying. Pure: numbers in, a decision out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 60.0
WINDOW_SECONDS = 3600.0


@dataclass(frozen=True)
class Restart:
    """Start again after so many seconds."""

    delay_seconds: float


@dataclass(frozen=True)
class GiveUp:
    """Stop trying; ``code`` is ``failed`` where trying again can never help, ``gave-up`` where it did not."""

    code: str
    why: str


def after_death(*, deaths: Sequence[float], now: float, limit: int, was_ready: bool, retryable: bool, cause: str) -> Restart | GiveUp:
    """
    Args:
        deaths: monotonic seconds of this program's deaths, this one included.
        limit: RESTART_LIMIT, restarts allowed within an hour.
        was_ready: did it ever serve in this run? A program that never did gets one more try, not the whole budget:
            loading takes minutes, and what failed twice in the same place will fail again.
    """
    if not retryable:
        return GiveUp("failed", f"{cause}. Starting again cannot help.")
    recent = [moment for moment in deaths if now - moment < WINDOW_SECONDS]
    allowed = limit if was_ready else min(limit, 1)
    if len(recent) > allowed:
        times = "once" if len(recent) == 1 else f"{len(recent)} times"
        return GiveUp("gave-up", f"it died {times} {'within an hour' if was_ready else 'before it was ready'}; the last time: {cause}")
    return Restart(min(FIRST_DELAY_SECONDS * 2 ** (len(recent) - 1), LONGEST_DELAY_SECONDS))
