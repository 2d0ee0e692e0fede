"""Does an engine's loop still turn? Told apart from "it is busy": a long prompt, a full queue and a slow disk are no hang."""

from __future__ import annotations

from qwen_fp8_ops.engine.metrics import EngineMetrics


class Pulse:
    """Signs of life: counters that move, questions of ours that are answered. Moments are monotonic seconds.

    /health answers 200 while the engine's loop is frozen (vLLM issue 39863), and a healthy one may keep a question waiting for
    minutes. So only this is silence: there is something to do, and for so long nothing at all has moved.
    """

    def __init__(self) -> None:
        self._reading: tuple[float, ...] | None = None
        self._moved = float("-inf")
        self._work_since: float | None = None
        self._asked: float | None = None

    def read(self, metrics: EngineMetrics, now: float) -> None:
        """A reading of the counters."""
        if metrics.motion != self._reading:
            self._reading, self._moved = metrics.motion, now
        if not metrics.running + metrics.waiting:
            self._work_since = None
        elif self._work_since is None:
            self._work_since = now

    def asked(self, now: float) -> None:
        """A question of ours went out; the first that is not answered counts."""
        if self._asked is None:
            self._asked = now

    def answered(self, now: float) -> None:
        self._asked, self._moved = None, now

    def missed(self, seconds: float) -> None:
        """Nobody looked for so long, because the supervisor itself did not run (it was stopped, its machine paused): that is no silence."""
        self._moved += seconds
        self._work_since = None if self._work_since is None else self._work_since + seconds
        self._asked = None if self._asked is None else self._asked + seconds

    def silent_seconds(self, now: float) -> float:
        """For how long there was work and no sign of life; 0 while there is nothing to do."""
        began = [moment for moment in (self._work_since, self._asked) if moment is not None]
        return max(0.0, now - max(min(began), self._moved)) if began else 0.0
