"""Metrics and wrong answers as a person reads them in a terminal. Whatever a model wrote becomes one harmless line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qwen_fp8_ops.client.batch.qa.verdicts import Verdict

LONGEST_OUTPUT = 160
MOST_GROUPS = 40


def as_text(metrics: dict[str, Any]) -> str:
    """Accuracy with its interval, what the rest was, and a table of categories and sources."""
    interval = metrics["confidence_interval"]
    if not metrics["total_questions"]:
        return "No question has all its answers yet."
    lines = [
        f"accuracy {_percent(metrics['overall_accuracy'])}: {metrics['correct_answers']} of {metrics['total_questions']} right"
        f" (95 % confidence: {_percent(interval['low'])} to {_percent(interval['high'])})"
    ]
    left_out = len(metrics["skipped_rows"])
    reasons = ", ".join(f"{count} {why}" for why, count in metrics["not_extracted_reasons"].items())
    rest = [
        f"{metrics['wrong']} wrong",
        f"{metrics['not_extracted']} without a readable answer{f' ({reasons})' if reasons else ''}",
        f"{metrics['errors']} failed",
        *([f"{metrics['truncated']} cut by --max-tokens"] if metrics["truncated"] else []),
        *([f"{metrics['not_asked']} not asked yet"] if metrics["not_asked"] else []),
        *([f"{left_out} row{'s' if left_out > 1 else ''} left out"] if left_out else []),
    ]
    lines.append(f"  {', '.join(rest)}")
    if "repeats" in metrics:
        repeats = metrics["repeats"]
        lines.append(
            f"  asked {metrics['repeat']} times: {_percent(repeats['accuracy_mean'])} right each time on average, {_percent(repeats['all_agree'])} answered alike"
        )
    if metrics["circular"]:
        lines.append(f"  {metrics['rotated_questions']} questions asked with every rotation of their choices; right is what is right in all")
    for name, key in (("category", "category_metrics"), ("source", "source_metrics")):
        if len(metrics[key]) > 1:
            lines += ["", *_table(name, metrics[key])]
    return "\n".join(lines)


def _table(name: str, groups: dict[str, Any]) -> list[str]:
    shown = dict(sorted(groups.items(), key=lambda pair: -pair[1]["total"])[:MOST_GROUPS])
    width = max(len(name), *(len(line(group, 40)) for group in shown))
    lines = [f"{name:<{width}}  questions  right  accuracy  95 % confidence     not read  failed"]
    for group, one in shown.items():
        low, high = one["confidence_interval"]
        lines.append(
            f"{line(group, 40):<{width}}  {one['total']:>9}  {one['correct']:>5}  {_percent(one['accuracy']):>8}  {_percent(low):>7} to {_percent(high):>7}"
            f"  {one['not_extracted']:>8}  {one['errors']:>6}"
        )
    return [*lines, f"and {len(groups) - len(shown)} more"] if len(groups) > len(shown) else lines


def errors_as_text(wrong: Iterable[Verdict]) -> str:
    """A line for each: what was true, what was said, and how the answer began or ended."""
    return "\n".join(_error(verdict) for verdict in wrong)


def _error(verdict: Verdict) -> str:
    question, given = verdict.question, verdict.shown
    true = question.letter or line(question.answer, 40)
    said = line(verdict.said, 40) if verdict.said is not None else f"nothing readable ({verdict.why})"
    if verdict.failure:
        return f"{line(question.qid, 60)}: {line(verdict.failure.message, LONGEST_OUTPUT)}"
    return f"{line(question.qid, 60)}: true {true}, said {said}: {line(given.outcome.answer, LONGEST_OUTPUT) if given else ''}"


def line(text: str, longest: int) -> str:
    """On one line, nothing in it that could steer a terminal; of a long text the end, where answers stand."""
    safe = " ".join("".join(letter if letter.isprintable() else " " for letter in text[-4 * longest :]).split())
    return safe if len(safe) <= longest else f"...{safe[3 - longest :]}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
