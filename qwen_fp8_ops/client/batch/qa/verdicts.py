"""What came of one question: the answer it was given over all its requests, and whether that is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from qwen_fp8_ops.client.batch.item import Failure, Outcome
from qwen_fp8_ops.client.batch.qa.asks import Ask, Asks
from qwen_fp8_ops.client.batch.qa.extraction import extract
from qwen_fp8_ops.client.batch.qa.normal import fold
from qwen_fp8_ops.client.batch.qa.open_answers import agrees, extract_open, number
from qwen_fp8_ops.client.batch.qa.questions import Question


@dataclass(frozen=True, slots=True)
class Given:
    """One request's answer, read. ``said`` is a letter or, for an open question, a text; None when nothing could be read, see ``why``."""

    ask: Ask
    outcome: Outcome
    said: str | None
    why: str
    right: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """``said`` and ``why``: of the choices in their own order, by majority where the question was asked several times.
    ``failure``: a request of it failed, so that nothing is known yet."""

    question: Question
    given: tuple[Given, ...]
    said: str | None
    why: str
    right: bool
    failure: Failure | None

    @property
    def kind(self) -> str:
        """Exactly one of correct, wrong, not_extracted, error."""
        return "error" if self.failure else "correct" if self.right else "wrong" if self.said is not None else "not_extracted"

    @property
    def truncated(self) -> bool:
        return any(given.outcome.truncated for given in self.given)

    @property
    def shown(self) -> Given | None:
        """The request whose text stands for the question: the first that said what was found."""
        own = [given for given in self.given if given.ask.rotation == 0] or [*self.given]
        return next((given for given in own if given.said == self.said), own[0] if own else None)

    def as_json(self) -> dict[str, Any]:
        """The record of a result file: the twelve fields that QA tools exchange first, then ours."""
        question, shown = self.question, self.shown
        outcome = shown.outcome if shown else None
        usages = [given.outcome.usage for given in self.given if given.outcome.usage]
        value: dict[str, Any] = {
            "qid": question.qid,
            "question": question.stem,
            "choices": [*question.told],
            "gt_answer": question.answer,
            "gt_letter": question.letter,
            "predicted_letter": self.said if question.letter else None,
            "model_output": outcome.answer.strip() if outcome else "",
            "is_correct": self.right,
            "category": question.category,
            "source": question.source,
            "image_paths": [*question.images],
            "num_images": len(question.images),
            "predicted_answer": self.said,
            "extraction": self.why,
            "reasoning": outcome.reasoning.strip() if outcome else "",
            "finish_reason": outcome.finish_reason if outcome else None,
            "truncated": self.truncated,
            "prompt_tokens": sum(usage.prompt_tokens for usage in usages),
            "completion_tokens": sum(usage.completion_tokens for usage in usages),
            "seconds": round(sum(given.outcome.seconds for given in self.given), 3),
            "error": {"code": self.failure.code, "message": self.failure.message, "status": self.failure.status} if self.failure else None,
        }
        if len(self.given) > 1:
            value["runs"] = [_run(given) for given in self.given]
        return value


def _run(given: Given) -> dict[str, Any]:
    return {
        "rotation": given.ask.rotation,
        "seed": given.ask.item.seed,
        "gt_letter": given.ask.letter,
        "predicted": given.said,
        "extraction": given.why,
        "is_correct": given.right,
        "model_output": given.outcome.answer.strip(),
        "finish_reason": given.outcome.finish_reason,
    }


def judge(question: Question, asks: Asks, find: Callable[[Ask], Outcome | None], tolerance: float | None = None) -> Verdict | None:
    """None when not all of its requests were made yet.

    Args:
        find: the outcome of a request.
        tolerance: see ``open_answers.agrees``.
    """
    given = []
    for ask in asks.of(question):
        outcome = find(ask)
        if outcome is None:
            return None
        given.append(_read(ask, question, outcome, tolerance))
    failure = next((one.outcome.failure for one in given if one.outcome.failure), None)
    if failure:
        return Verdict(question, tuple(given), None, "failed", right=False, failure=failure)
    votes = [_majority([one for one in given if one.ask.rotation == rotation]) for rotation in range(asks.rotations(question))]
    said, why, _ = votes[0]
    return Verdict(question, tuple(given), said, why, right=all(right for _, _, right in votes), failure=None)


def _read(ask: Ask, question: Question, outcome: Outcome, tolerance: float | None) -> Given:
    if not outcome.ok:
        return Given(ask, outcome, None, "failed", right=False)
    if ask.choices is not None:
        found = extract(outcome.answer, ask.choices)
        return Given(ask, outcome, found.letter, found.why, right=found.letter is not None and found.letter == ask.letter)
    said = extract_open(outcome.answer)
    return Given(ask, outcome, said.text, said.why, right=agrees(said, question.answer, tolerance))


def _majority(given: Sequence[Given]) -> tuple[str | None, str, bool]:
    """What was said most often; two answers that are equally frequent are none. Unread answers do not vote."""
    votes = Counter(_vote(one) for one in given if one.said is not None)
    ranked = votes.most_common(2)
    if not ranked:
        return None, given[0].why, False
    if len(ranked) == 2 and ranked[0][1] == ranked[1][1]:
        return None, "tie", False
    first = next(one for one in given if one.said is not None and _vote(one) == ranked[0][0])
    return first.said, first.why, first.right


def _vote(given: Given) -> str:
    said = given.said or ""
    if given.ask.choices is not None:
        return said
    value = number(said)
    return repr(value.value) if value else fold(said)
