"""The list of what went wrong: a line for each input that failed, was cut by the token limit or came back empty."""

from __future__ import annotations

from typing import Any

from qwen_fp8_ops.client.batch.files import ResultFiles
from qwen_fp8_ops.client.batch.item import Inputs, Outcome
from qwen_fp8_ops.client.batch.ordered import ordered
from qwen_fp8_ops.client.batch.publish import write_lines
from qwen_fp8_ops.client.batch.records import Records


def publish_problems(records: Records, inputs: Inputs, files: ResultFiles) -> None:
    """
    Raises:
        OpsError: the folder refuses it.
    """
    if not write_lines(files.problems, (problem for outcome in ordered(records, inputs) if (problem := problem_of(outcome)))):
        files.problems.unlink(missing_ok=True)


def problem_of(outcome: Outcome) -> dict[str, Any] | None:
    """What is wrong with it, as one line for people and programs; None when nothing is."""
    if outcome.failure:
        failure = outcome.failure
        return {"id": outcome.id, "problem": "failed", "code": failure.code, "status": failure.status, "tries": outcome.tries, "message": failure.message}
    problem = "empty" if outcome.empty else "truncated" if outcome.truncated else ""
    return {"id": outcome.id, "problem": problem, "finish_reason": outcome.finish_reason} if problem else None
