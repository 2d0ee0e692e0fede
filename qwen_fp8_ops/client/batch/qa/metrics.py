"""Counts over all questions. They add up: total = correct + wrong + not_extracted + errors, overall and in every group.

Accuracy is correct / total, so that a failed request counts against it until it is retried. Its interval is Wilson's, which stays
within 0 and 1 and holds for few questions and for accuracies near the ends (Brown, Cai and DasGupta 2001 recommend it).
"""

from __future__ import annotations

import math
import statistics
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from qwen_fp8_ops.client.batch.qa.verdicts import Verdict

Z95 = 1.959963984540054
UNKNOWN = "Unknown"
"""The group of questions without a category or source."""


def wilson(correct: int, total: int, z: float = Z95) -> tuple[float, float]:
    """The interval that holds the true share with 95 % confidence, when ``correct`` of ``total`` were seen."""
    if total == 0:
        return 0.0, 1.0
    share, z2 = correct / total, z * z
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = z * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total)) / (1 + z2 / total)
    return (0.0 if correct == 0 else middle - half), (1.0 if correct == total else middle + half)


@dataclass
class Group:
    """Questions of one kind."""

    total: int = 0
    correct: int = 0
    wrong: int = 0
    not_extracted: int = 0
    errors: int = 0

    def add(self, kind: str) -> None:
        self.total += 1
        name = "errors" if kind == "error" else kind
        setattr(self, name, getattr(self, name) + 1)

    @property
    def accuracy(self) -> float:
        return self.correct / self.total if self.total else 0.0

    def as_json(self) -> dict[str, Any]:
        low, high = wilson(self.correct, self.total)
        return {
            "total": self.total,
            "correct": self.correct,
            "accuracy": round(self.accuracy, 4),
            "confidence_interval": [round(low, 4), round(high, 4)],
            "wrong": self.wrong,
            "not_extracted": self.not_extracted,
            "errors": self.errors,
        }


@dataclass
class Metrics:
    """Adds verdicts one by one; holds no question."""

    overall: Group = field(default_factory=Group)
    categories: dict[str, Group] = field(default_factory=dict)
    sources: dict[str, Group] = field(default_factory=dict)
    not_asked: int = 0
    truncated: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    requests: int = 0
    agreed: int = 0
    several: int = 0
    seconds: array[float] = field(default_factory=lambda: array("d"))
    right_by_time: Counter[int] = field(default_factory=Counter)

    def add(self, verdict: Verdict) -> None:
        question = verdict.question
        self.overall.add(verdict.kind)
        self.categories.setdefault(question.category or UNKNOWN, Group()).add(verdict.kind)
        self.sources.setdefault(question.source or UNKNOWN, Group()).add(verdict.kind)
        self.truncated += verdict.truncated
        if verdict.kind == "not_extracted":
            self.reasons[verdict.why] += 1
        for given in verdict.given:
            self.requests += 1
            if given.outcome.usage:
                self.prompt_tokens += given.outcome.usage.prompt_tokens
                self.completion_tokens += given.outcome.usage.completion_tokens
            if given.outcome.ok:
                self.seconds.append(given.outcome.seconds)
        self._compare(verdict)

    def _compare(self, verdict: Verdict) -> None:
        """How far the repeated requests of one question agree, in the choices' own order."""
        own = [given for given in verdict.given if given.ask.rotation == 0]
        if len(own) < 2:
            return
        self.several += 1
        self.agreed += len({given.said for given in own}) == 1 and own[0].said is not None
        for given in own:
            self.right_by_time[given.ask.time] += given.right

    def as_json(self) -> dict[str, Any]:
        """Without what only the caller knows: model, paths, address. The names before ``confidence_interval`` are those QA tools exchange."""
        overall = self.overall.as_json()
        value: dict[str, Any] = {
            "total_questions": self.overall.total,
            "correct_answers": self.overall.correct,
            "overall_accuracy": overall["accuracy"],
            "category_metrics": {name: self.categories[name].as_json() for name in sorted(self.categories)},
            "source_metrics": {name: self.sources[name].as_json() for name in sorted(self.sources)},
            "confidence_interval": {"level": 0.95, "method": "wilson", "low": overall["confidence_interval"][0], "high": overall["confidence_interval"][1]},
            "wrong": self.overall.wrong,
            "not_extracted": self.overall.not_extracted,
            "not_extracted_reasons": dict(self.reasons.most_common()),
            "errors": self.overall.errors,
            "truncated": self.truncated,
            "not_asked": self.not_asked,
            "requests": self.requests,
            "tokens": {"prompt": self.prompt_tokens, "completion": self.completion_tokens},
            "latency_seconds": _latency(self.seconds),
        }
        if self.several:
            shares = [self.right_by_time[time] / self.several for time in sorted(self.right_by_time)]
            value["repeats"] = {
                "accuracy_each": [round(share, 4) for share in shares],
                "accuracy_mean": round(statistics.fmean(shares), 4),
                "all_agree": round(self.agreed / self.several, 4),
            }
        return value


def _latency(seconds: array[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    ordered = sorted(seconds)
    at = {name: ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
    return {"mean": round(statistics.fmean(ordered), 3), **{name: round(value, 3) for name, value in at.items()}, "longest": round(ordered[-1], 3)}
