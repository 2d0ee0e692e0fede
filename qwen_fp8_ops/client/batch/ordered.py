"""Outcomes in the order of the inputs, whatever order they came in, and what is wrong with some of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qwen_fp8_ops.client.batch.item import Inputs, Outcome
from qwen_fp8_ops.client.batch.records import Records


def ordered(records: Records, inputs: Inputs) -> Iterator[Outcome]:
    """Those of the inputs first; then, as they came, the answers about inputs that are not there any more, or not among these. A
    failure of such a one is nobody's problem: it is left out.
    """
    seen: set[int] = set()
    for item in inputs:
        outcome = records.find(item.id)
        if outcome is not None:
            seen.add(hash(outcome.id))
            yield outcome
    if len(seen) < len(records):
        yield from (outcome for outcome in records if outcome.ok and hash(outcome.id) not in seen)


def problem_of(outcome: Outcome) -> dict[str, Any] | None:
    """What is wrong with it, as one line for people and programs; None when nothing is."""
    if outcome.failure:
        failure = outcome.failure
        return {"id": outcome.id, "problem": "failed", "code": failure.code, "status": failure.status, "tries": outcome.tries, "message": failure.message}
    problem = "empty" if outcome.empty else "truncated" if outcome.truncated else ""
    return {"id": outcome.id, "problem": problem, "finish_reason": outcome.finish_reason} if problem else None
