"""What a run has done so far: numbers that the run counts and a screen reads."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from qwen_fp8_ops.client.batch.item import Outcome
from qwen_fp8_ops.outside import clock

WINDOW_SECONDS = 60.0


@dataclass
class Tally:
    """``total`` is None until the inputs are counted. ``kept``: outcomes of earlier runs that still hold; ``kept_failed`` of these
    are failures. ``problems`` counts codes of failures, of this run and kept ones. ``waits_for`` says why nothing is sent.
    """

    total: int | None = None
    kept: int = 0
    kept_failed: int = 0
    answered: int = 0
    failed: int = 0
    truncated: int = 0
    empty: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    retries: int = 0
    in_flight: int = 0
    limit: int = 0
    waits_for: str = ""
    interrupted: bool = False
    problems: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=clock.monotonic)
    ended: float | None = None
    _marks: deque[tuple[float, int, int]] = field(default_factory=deque)

    def keep(self, outcome: Outcome) -> None:
        """Done by an earlier run."""
        self.kept += 1
        self.kept_failed += not outcome.ok
        self._judge(outcome)

    def add(self, outcome: Outcome) -> None:
        self.answered += outcome.ok
        self.failed += not outcome.ok
        self.retries += max(0, outcome.tries - 1)
        if outcome.usage:
            self.prompt_tokens += outcome.usage.prompt_tokens
            self.completion_tokens += outcome.usage.completion_tokens
        self._judge(outcome)

    def _judge(self, outcome: Outcome) -> None:
        self.truncated += outcome.truncated
        self.empty += outcome.empty
        if outcome.failure:
            self.problems[outcome.failure.code] += 1

    @property
    def done(self) -> int:
        return self.kept + self.answered + self.failed

    @property
    def all_failed(self) -> int:
        return self.kept_failed + self.failed

    @property
    def missing(self) -> int | None:
        """Inputs that nothing is known of: of a run that ended early, or of a share that is not there."""
        return None if self.total is None else max(0, self.total - self.done)

    @property
    def seconds(self) -> float:
        return max((self.ended or clock.monotonic()) - self.began, 1e-9)

    def rates(self) -> tuple[float, float]:
        """Items and tokens of answers per second, over the last minute; each call is a mark for the later ones."""
        now, items = clock.monotonic(), self.answered + self.failed
        if not self._marks:
            self._marks.append((self.began, 0, 0))
        self._marks.append((now, items, self.completion_tokens))
        while len(self._marks) > 2 and now - self._marks[1][0] > WINDOW_SECONDS:
            self._marks.popleft()
        began, before, tokens = self._marks[0]
        passed = max(now - began, 1e-9)
        return (items - before) / passed, (self.completion_tokens - tokens) / passed

    def eta_seconds(self, items_per_second: float) -> float | None:
        if self.missing is None or items_per_second <= 0:
            return None
        return self.missing / items_per_second

    def as_json(self) -> dict[str, Any]:
        return {
            "total": self.total,
            "done": self.done,
            "kept": self.kept,
            "answered": self.answered,
            "failed": self.all_failed,
            "truncated": self.truncated,
            "empty": self.empty,
            "missing": self.missing,
            "problems": dict(self.problems.most_common()),
            "interrupted": self.interrupted,
            "retries": self.retries,
            "seconds": round(self.seconds, 3),
            "items_per_second": round((self.answered + self.failed) / self.seconds, 3),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "completion_tokens_per_second": round(self.completion_tokens / self.seconds, 1),
            "concurrency": self.limit,
        }
