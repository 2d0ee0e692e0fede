"""Is an answer true? One pure function per kind of question, from the answer's text and the example's truth to scores from 0 to 1."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from qwen_fp8_ops.weights.demo.world.things import COLOURS, SHAPES

PAIR = re.compile(rf"\b({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b")
FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)
Scores = dict[str, float]


def judge(kind: str, answer: str, truth: Any) -> Scores:
    """Scores by name; a text that cannot be read as an answer gets 0."""
    return JUDGES[kind](answer, truth)


def caption(answer: str, truth: Mapping[str, Any]) -> Scores:
    said, true = Counter(" ".join(pair) for pair in PAIR.findall(answer)), Counter(truth["pairs"])
    hits = (said & true).total()
    return {"caption F1": 2 * hits / max(1, said.total() + true.total())}


def count(answer: str, truth: int) -> Scores:
    found = re.search(r"\d+", answer)
    return {"count": float(found is not None and int(found[0]) == truth)}


def choice(answer: str, truth: str) -> Scores:
    return {"multiple choice": float(re.findall(r"\\boxed\{([A-D])\}", answer)[-1:] == [truth])}


def letter(answer: str, truth: str) -> Scores:
    return {"multiple choice by the letter alone": float(answer.strip().strip(".") == truth)}


def boxes(answer: str, truth: list[dict[str, Any]]) -> Scores:
    """The mean over the true boxes; one that was not named, or is not of four numbers, has an overlap of 0."""
    said = {entry.get("label"): entry.get("bbox_2d") for entry in _entries(answer)}
    return {"box IoU": sum(overlap(said.get(entry["label"]), entry["bbox_2d"]) for entry in truth) / len(truth)}


def points(answer: str, truth: list[list[int]]) -> Scores:
    said = [entry.get("point_2d") for entry in _entries(answer)]
    hits = sum(_inside(point, box) for point, box in zip(said, truth, strict=False))
    return {"point inside": hits / len(truth)}


def text(answer: str, truth: str) -> Scores:
    return {"text exact": float(answer.strip() == truth)}


def text_boxes(answer: str, truth: list[dict[str, Any]]) -> Scores:
    said = _entries(answer)
    right = [entry.get("text_content") for entry in said] == [entry["text_content"] for entry in truth]
    pairs = zip(said, truth, strict=False)
    return {"text lines exact": float(right), "text line IoU": sum(overlap(one.get("bbox_2d"), other["bbox_2d"]) for one, other in pairs) / len(truth)}


def direction(answer: str, truth: str) -> Scores:
    said = re.findall(r"\b(left|right|up|down)\b", answer)
    return {"video direction": float(said[-1:] == [truth])}


def appears(answer: str, truth: str) -> Scores:
    return {"video appears": float([" ".join(pair) for pair in PAIR.findall(answer)] == [truth])}


def times(answer: str, truth: dict[str, int]) -> Scores:
    return {"video times": float(_json(answer) == truth)}


def click(answer: str, truth: list[int]) -> Scores:
    """``answer`` is the tool call's JSON."""
    call = _json(answer)
    arguments = call.get("arguments") if isinstance(call, dict) else None
    inside = isinstance(arguments, dict) and arguments.get("action") == "left_click" and _inside(arguments.get("coordinate"), truth)
    return {"click inside": float(inside)}


def several(answer: str, truth: list[list[str]]) -> Scores:
    said = [" ".join(pair) for pair in PAIR.findall(answer)]
    return {"several images": float(sorted(said) == sorted(name for names in truth for name in names))}


def number_of(name: str) -> Callable[[str, int], Scores]:
    def score(answer: str, truth: int) -> Scores:
        return {name: count(answer, truth)["count"]}

    return score


def word(name: str) -> Callable[[str, Any], Scores]:
    """Is the true word the last of its kind that was said?"""

    def score(answer: str, truth: Any) -> Scores:
        wanted = {True: "Yes.", False: "No."}.get(truth) if isinstance(truth, bool) else None
        return {name: float(answer.strip() == wanted if wanted else str(truth) in answer)}

    return score


JUDGES: dict[str, Callable[[str, Any], Scores]] = {
    "caption": caption,
    "count": count,
    "choice": choice,
    "choice of letter": letter,
    "boxes": boxes,
    "points": points,
    "text": text,
    "text-boxes": text_boxes,
    "direction": direction,
    "appears": appears,
    "times": times,
    "click": click,
    "several": several,
    "several-count": number_of("count in one of several"),
    "several-which": number_of("which of several"),
    "colour": word("colour of"),
    "shape": word("shape of"),
    "place": word("place of"),
    "exists": word("is there"),
    "relation": word("relation"),
}


def overlap(said: Any, true: list[int]) -> float:
    """Intersection over union of two boxes; 0 for what is no box."""
    if not _numbers(said, 4):
        return 0.0
    wide = min(said[2], true[2]) - max(said[0], true[0])
    high = min(said[3], true[3]) - max(said[1], true[1])
    shared = max(0, wide) * max(0, high)
    both = (said[2] - said[0]) * (said[3] - said[1]) + (true[2] - true[0]) * (true[3] - true[1]) - shared
    return float(shared / both) if both > 0 else 0.0


def _inside(point: Any, box: list[int]) -> bool:
    return _numbers(point, 2) and box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def _numbers(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(isinstance(one, int | float) for one in value)


def _entries(answer: str) -> list[dict[str, Any]]:
    found = _json(answer)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _json(answer: str) -> Any:
    fenced = FENCE.search(answer)
    try:
        return json.loads(fenced[1] if fenced else answer)
    except ValueError:
        return None
