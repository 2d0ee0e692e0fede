"""The files that come of a run, made from its journal: results, metrics, and the page of wrong answers. All are replaced in one step.

NAME_qa_results.json     a record for each question that has all its answers, by qid, in the order of the question file
NAME_qa_metrics.json     what the records add up to
NAME_qa_report.html      the wrong ones with their images
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_fp8_ops.client.batch.files import ResultFiles
from qwen_fp8_ops.client.batch.folder import readable
from qwen_fp8_ops.client.batch.item import Outcome
from qwen_fp8_ops.client.batch.journal import Journal
from qwen_fp8_ops.client.batch.publish import replacing, write_lines, write_object, write_parquet
from qwen_fp8_ops.client.batch.qa.asks import Ask, Asks
from qwen_fp8_ops.client.batch.qa.metrics import Metrics
from qwen_fp8_ops.client.batch.qa.questions import BadRow, Question
from qwen_fp8_ops.client.batch.qa.report import MOST_SHOWN, page
from qwen_fp8_ops.client.batch.qa.verdicts import Verdict, judge
from qwen_fp8_ops.errors import ConfigError
from qwen_fp8_ops.outside.files import write_json

SCHEMA = 1
COLUMNS = {
    **dict.fromkeys(("qid", "question", "choices", "gt_answer", "gt_letter", "predicted_letter", "model_output"), "string"),
    "is_correct": "bool",
    **dict.fromkeys(("category", "source", "image_paths"), "string"),
    "num_images": "int64",
    **dict.fromkeys(("predicted_answer", "extraction", "reasoning", "finish_reason"), "string"),
    "truncated": "bool",
    **dict.fromkeys(("prompt_tokens", "completion_tokens"), "int64"),
    "seconds": "double",
    **dict.fromkeys(("error", "runs"), "string"),
}
"""Of the parquet form; lists and objects are JSON text in it."""


@dataclass(frozen=True)
class Facts:
    """What the metrics file says of a run besides its counts."""

    model: str
    question_path: Path
    dataset_path: Path
    server_url: str
    skipped: Sequence[BadRow] = ()
    tolerance: float | None = None


@dataclass
class Published:
    result: Path
    metrics_file: Path
    report: Path | None
    metrics: dict[str, Any]

    @property
    def files(self) -> tuple[tuple[str, Path | None], ...]:
        return ("result", self.result), ("metrics_file", self.metrics_file), ("report", self.report)


def publish_qa(journal: Journal, asks: Asks, files: ResultFiles, facts: Facts, form: str, *, with_report: bool) -> Published:
    """
    Args:
        asks: of all questions, also of those that were not asked yet.
        form: json, jsonl or parquet.

    Raises:
        OpsError: the folder refuses a file; pyarrow is missing.
    """
    metrics = Metrics()
    wrong: list[Verdict] = []

    def rows() -> Iterator[dict[str, Any]]:
        for verdict in verdicts(journal, asks, facts.tolerance):
            if isinstance(verdict, Question):
                metrics.not_asked += 1
                continue
            metrics.add(verdict)
            if not verdict.right and len(wrong) < MOST_SHOWN:
                wrong.append(verdict)
            yield verdict.as_json()

    result = files.result(f"_results.{form}")
    if form == "json":
        write_object(result, ((row["qid"], row) for row in rows()))
    elif form == "jsonl":
        write_lines(result, rows())
    else:
        write_parquet(result, map(_flat, rows()), COLUMNS)
    value = _metrics(metrics, journal, asks, facts)
    metrics_file = files.result("_metrics.json")
    write_json(metrics_file, value)
    report = files.result("_report.html") if with_report else None
    if report:
        with replacing(report) as file:
            file.writelines(page(value, wrong, facts.dataset_path))
    return Published(result, metrics_file, report, value)


def verdicts(journal: Journal, asks: Asks, tolerance: float | None) -> Iterator[Verdict | Question]:
    """A verdict for each question, in order; the question itself where an answer is still missing."""
    recipe = journal.recipe

    def find(ask: Ask) -> Outcome | None:
        outcome = journal.find(ask.item.id)  # one of another question under the same id does not count
        return outcome if outcome is not None and outcome.asked == recipe.asked(ask.item) else None

    for question in asks.questions:
        yield judge(question, asks, find, tolerance) or question


def wrong_ones(journal: Journal, asks: Asks, tolerance: float | None) -> Iterator[Verdict]:
    """All that were not answered right: wrong, unread and failed ones."""
    return (found for found in verdicts(journal, asks, tolerance) if isinstance(found, Verdict) and not found.right)


def check_same_run(journal: Journal, details: dict[str, Any]) -> None:
    """Shares that are merged must have been asked as this command would ask.

    Raises:
        ConfigError: they were not (code ``other-recipe``).
    """
    before = journal.recipe.details
    differ = [name for name in details if before.get(name) != details[name]]
    if differ:
        lines = [f"    {name}: {before.get(name)!r} -> {details[name]!r}" for name in differ]
        message = "\n".join(["The shares were asked in another way than this command says:", *lines])
        raise ConfigError(message, code="other-recipe", fix="Give --merge the same questions, --repeat, --circular and --instruction as the shares had.")


def _metrics(metrics: Metrics, journal: Journal, asks: Asks, facts: Facts) -> dict[str, Any]:
    counts = metrics.as_json()
    first = {name: counts.pop(name) for name in ("total_questions", "correct_answers", "overall_accuracy", "category_metrics")}
    recipe = journal.recipe.as_json()
    return {
        "model": facts.model,
        **first,
        "question_path": readable(facts.question_path),
        "dataset_path": readable(facts.dataset_path),
        "server_url": facts.server_url,
        "schema": SCHEMA,
        "complete": metrics.not_asked == 0,
        **counts,
        "skipped_rows": [{"row": row.number, "qid": row.qid, "why": row.why} for row in facts.skipped],
        "tolerance": facts.tolerance,
        "repeat": asks.times,
        "circular": asks.circular,
        "rotated_questions": sum(asks.rotations(question) > 1 for question in asks.questions),
        "served_model": recipe["model"],
        "sampling": recipe["sampling"],
    }


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    texts = {name: json.dumps(row[name], ensure_ascii=False) for name in ("choices", "image_paths", "error", "runs") if row.get(name) is not None}
    return {**row, **texts}
