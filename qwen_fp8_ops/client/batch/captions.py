"""Captions: what is asked of each image, and the files that come of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qwen_fp8_ops.client.batch.files import ResultFiles
from qwen_fp8_ops.client.batch.item import Inputs
from qwen_fp8_ops.client.batch.ordered import ordered
from qwen_fp8_ops.client.batch.problems import publish_problems
from qwen_fp8_ops.client.batch.publish import write_lines, write_object, write_parquet
from qwen_fp8_ops.client.batch.records import Records

PROMPTS = {
    "SIMPLE": "Describe this image in detail.",
    "SHORT": "Write a very short caption for the given image.",
    "LONG": "Write a very long and detailed caption describing the given image as comprehensively as possible.",
}
COLUMNS = {
    "image": "string",
    "caption": "string",
    "reasoning": "string",
    "finish_reason": "string",
    "truncated": "bool",
    "prompt_tokens": "int64",
    "completion_tokens": "int64",
    "seconds": "double",
    "tries": "int64",
}


def publish_captions(records: Records, inputs: Inputs, files: ResultFiles, form: str) -> Path:
    """Write the result and the list of problems; returns the result's path.

    Args:
        form: ``json`` is an object of captions by path; ``jsonl`` and ``parquet`` hold thinking, tokens and time as well.

    Raises:
        OpsError: the folder refuses it; pyarrow is missing.
    """
    path = files.result(f".{form}")
    if form == "json":
        write_object(path, ((row["image"], row["caption"]) for row in _rows(records, inputs)))
    elif form == "jsonl":
        write_lines(path, _rows(records, inputs))
    else:
        write_parquet(path, _rows(records, inputs), COLUMNS)
    publish_problems(records, inputs, files)
    return path


def _rows(records: Records, inputs: Inputs) -> Iterator[dict[str, Any]]:
    """What has a caption; failures and empty answers are among the problems."""
    for outcome in ordered(records, inputs):
        if outcome.ok and not outcome.empty:
            usage = outcome.usage
            yield {
                "image": outcome.id,
                "caption": outcome.answer.strip(),
                "reasoning": outcome.reasoning.strip(),
                "finish_reason": outcome.finish_reason,
                "truncated": outcome.truncated,
                "prompt_tokens": usage.prompt_tokens if usage else None,
                "completion_tokens": usage.completion_tokens if usage else None,
                "seconds": round(outcome.seconds, 3),
                "tries": outcome.tries,
            }
