"""The choices of a question: letters and their texts, found in its text or given in a column of their own.

In a text they may be marked ``A.``, ``A)``, ``(A)``, ``[A]``, ``A:`` or ``A、``, one a line or several, in full width too. They must begin
with A and go on without a gap; of several such rows the last is meant, since a question stands before its choices.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from qwen_fp8_ops.client.batch.qa.normal import fold
from qwen_fp8_ops.client.batch.qa.tables import RowError, is_nothing

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FEWEST = 2

_LETTER = "([A-ZＡ-Ｚ])"
_EMPHASIS = r"(?:\*\*|__)?"
_BEFORE = r"(?<![A-Za-z0-9Ａ-Ｚ_.(（\[])"
STYLES = tuple(
    re.compile(_BEFORE + _EMPHASIS + form + _EMPHASIS)
    for form in (rf"[(（]{_LETTER}[)）][.:：]?", rf"\[{_LETTER}\]", rf"{_LETTER}[.．]", rf"{_LETTER}[)）]", rf"{_LETTER}[:：]", rf"{_LETTER}、")
) + tuple(re.compile(rf"(?m)^[ \t]*{form}(?=[ \t]+\S)") for form in (r"[(]([a-z])[)]", r"([a-z])[)]", r"([a-z])\."))
"""Ways to mark a choice; all of one question are marked in the same way. Small letters count only at the beginning of a line."""

FIXED_PLACE = re.compile(
    r"\b(?:all|none|both|neither|any|some|either) of (?:the|these|those|them)\b|\b(?:above|below)\b|^(?:both|neither|only|either)? ?[(]?[A-Z][)]?(?: ?(?:,|and|or|&|nor) ?[(]?[A-Z][)]?)+$"
    r"|以上|上述",
    re.IGNORECASE,
)
"""Choices that speak of the others, so that they must stay where they are."""


@dataclass(frozen=True)
class Choices:
    """``texts`` belong to A, B, C, ... in this order; all are empty when only the letters are known (the choices stand in the image)."""

    texts: tuple[str, ...]

    @property
    def letters(self) -> str:
        return LETTERS[: len(self.texts)]

    def text(self, letter: str) -> str:
        return self.texts[LETTERS.index(letter)]

    def letters_of(self, text: str) -> list[str]:
        """Those whose text is this one, case, articles and marks around it aside."""
        wanted = fold(text)
        return [letter for letter, own in zip(self.letters, self.folded, strict=True) if wanted and own == wanted]

    @cached_property
    def folded(self) -> tuple[str, ...]:
        return tuple(map(fold, self.texts))

    @property
    def may_rotate(self) -> bool:
        return all(text and not FIXED_PLACE.search(text) for text in self.texts)

    def rotated(self, steps: int) -> Choices:
        """Each text ``steps`` letters further, the last ones coming round to A."""
        cut = len(self.texts) - steps % len(self.texts)
        return Choices(self.texts[cut:] + self.texts[:cut])


IN_THE_IMAGE = Choices(("",) * 8)
"""Of a question whose answer is a letter and whose choices nobody told: A to H."""


@dataclass(frozen=True)
class Found:
    """Choices within ``question``; ``spans`` are where their texts stand."""

    question: str
    spans: tuple[tuple[int, int], ...]
    begin: int

    @property
    def choices(self) -> Choices:
        return Choices(tuple(self.question[start:end] for start, end in self.spans))

    @property
    def stem(self) -> str:
        """The question before its choices, without a heading such as ``Options:``."""
        return re.sub(r"(?i)\s*(?:\*\*)?(?:options|choices|选项)\s*[:：]?(?:\*\*)?\s*$", "", self.question[: self.begin]).strip()

    @property
    def tail(self) -> str:
        """What stands behind the choices: how to answer, as a rule."""
        return self.question[self.spans[-1][1] :].strip()

    def with_texts(self, texts: Sequence[str]) -> str:
        """The question as it is, with other texts behind its letters."""
        pieces, done = [], 0
        for (start, end), text in zip(self.spans, texts, strict=True):
            pieces += [self.question[done:start], text]
            done = end
        return "".join([*pieces, self.question[done:]])


def find_choices(question: str) -> Found | None:
    """The choices that a question's text holds; None when it holds none."""
    runs = [run for style in STYLES for run in _runs([*style.finditer(question)])]
    found = [option for run in runs if (option := _texts(question, run)) is not None]
    return max(found, key=lambda option: (option.begin, len(option.spans)), default=None)


def _runs(marks: list[re.Match[str]]) -> list[list[re.Match[str]]]:
    """Each row of marks that begins with A and has no gap."""
    runs: list[list[re.Match[str]]] = []
    for mark in marks:
        place = _place(mark)
        if place == 0:
            runs.append([mark])
        elif runs and place == len(runs[-1]) and place == _place(runs[-1][-1]) + 1:
            runs[-1].append(mark)
    return [run for run in runs if len(run) >= FEWEST]


def _place(mark: re.Match[str]) -> int:
    letter = mark[1]
    return ord(letter) - ord("Ａ" if letter >= "Ａ" else "a" if letter.islower() else "A")


def _texts(question: str, run: list[re.Match[str]]) -> Found | None:
    ends = [following.start() for following in run[1:]]
    line_starts = all(not question[question.rfind("\n", 0, mark.start()) + 1 : mark.start()].strip(" \t-*•>") for mark in run)
    if line_starts:  # a bullet before a letter is not a part of the choice before it
        ends = [question.rfind("\n", 0, end) for end in ends]
    several_lines = line_starts and any("\n" in question[mark.end() : end].strip() for mark, end in zip(run, ends, strict=False))
    stop = re.compile(r"\n\s*\n" if several_lines else r"\n").search(question, run[-1].end())
    ends.append(stop.start() if stop else len(question))
    spans = []
    for mark, end in zip(run, ends, strict=True):
        text = question[mark.end() : end]
        start = mark.end() + len(text) - len(text.lstrip())
        spans.append((start, start + len(text.strip().rstrip(";；").rstrip())))
    if any(start >= end or question[start:end].lower() in ("and", "or", ",", "&") for start, end in spans):
        return None  # letters in a sentence, as in ``which of A. and B.``
    return Found(question, tuple(spans), question.rfind("\n", 0, run[0].start()) + 1 if line_starts else run[0].start())


def given_choices(value: Any) -> Choices | None:
    """Choices from a column: a list, an array, a mapping of letters, ``{"label": [...], "text": [...]}``, or one of these written as text.

    Raises:
        RowError: it is something else, or has fewer than 2 or more than 26 texts; the message is for people.
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, str):
        value = _written(value)
    if isinstance(value, Mapping):
        value = _from_mapping(value)
    if is_nothing(value) or (isinstance(value, Sequence) and not value):
        return None
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise RowError(f"choices are {str(value)[:60]!r}, and must be a list of texts")
    texts = tuple("" if text is None else str(text).strip() for text in value)
    if not FEWEST <= len(texts) <= len(LETTERS):
        raise RowError(f"there are {len(texts)} choices; allowed are {FEWEST} to {len(LETTERS)}")
    if not all(texts):
        raise RowError("one of the choices is empty")
    lettered = find_choices("\n".join(texts))
    return lettered.choices if lettered and len(lettered.spans) == len(texts) and lettered.begin == 0 else Choices(texts)


def _written(text: str) -> Any:
    if not text.strip():
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    found = find_choices(text)
    return list(found.choices.texts) if found else text


def _from_mapping(value: Mapping[Any, Any]) -> Any:
    if "text" in value and not isinstance(value["text"], str):
        texts = value["text"]
        return texts.tolist() if hasattr(texts, "tolist") else texts
    named = {str(name).strip().upper(): text for name, text in value.items()}
    present = {name: text for name, text in named.items() if text is not None}  # a column of structs has every key in every row
    if sorted(present) != list(LETTERS[: len(present)]):
        raise RowError(f"choices are named {', '.join(sorted(named))[:80]}, and must be A, B, C, ...")
    return [present[letter] for letter in sorted(present)]
