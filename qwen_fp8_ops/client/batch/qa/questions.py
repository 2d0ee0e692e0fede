"""Questions as they are asked and judged, made from rows; and the rows that no question can be made of, each with its reason.

All of it happens before the first request: a wrong path or a doubled id is found in seconds and not after a night.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_fp8_ops.client.batch.qa.choices import IN_THE_IMAGE, Choices, find_choices, given_choices
from qwen_fp8_ops.client.batch.qa.image_field import image_paths, within
from qwen_fp8_ops.client.batch.qa.normal import fold, plain, without_markdown
from qwen_fp8_ops.client.batch.qa.open_answers import true_answer
from qwen_fp8_ops.client.batch.qa.reading import Kind, read_whole
from qwen_fp8_ops.client.batch.qa.tables import Row, RowError, is_nothing
from qwen_fp8_ops.errors import ConfigError

PLACEHOLDER = re.compile(r"[ \t]*<image>[ \t]*\n?")
"""Where other programs put the image; ours goes before the text, as the model was trained."""

MOST_TOLD = 20


@dataclass(frozen=True, slots=True)
class Question:
    """
    Args:
        text: as the model is asked, with the choices and without an instruction how to answer.
        stem: the question alone.
        choices: None for an open question.
        answer: as the file has it. ``letter`` is the one it stands for, None for an open question.
        images: as the file has them, relative to the data set's folder or within it.
    """

    row: int
    qid: str
    text: str
    stem: str
    choices: Choices | None
    answer: str
    letter: str | None
    images: tuple[str, ...]
    category: str | None
    source: str | None

    @property
    def told(self) -> tuple[str, ...]:
        """The choices' texts; none when they stand in the image only."""
        return tuple(text for text in self.choices.texts if text) if self.choices else ()


@dataclass(frozen=True, slots=True)
class BadRow:
    number: int
    qid: str | None
    why: str

    def __str__(self) -> str:
        return f"row {self.number}{f' ({_short(self.qid)})' if self.qid else ''}: {self.why}"


@dataclass(frozen=True)
class Sheet:
    questions: tuple[Question, ...]
    bad: tuple[BadRow, ...]


def make_questions(rows: Iterable[Row], dataset: Path) -> Sheet:
    """
    Args:
        dataset: the folder that the images' paths begin at.
    """
    questions: list[Question] = []
    bad: list[BadRow] = []
    first_row: dict[str, int] = {}
    images = _Images(dataset)
    for row in rows:
        qid = None
        try:
            qid = _new_id(row, first_row)
            questions.append(_question(row, qid, images))
        except RowError as error:
            bad.append(BadRow(row.number, qid, str(error)))
    return Sheet(tuple(questions), tuple(bad))


def _new_id(row: Row, first_row: dict[str, int]) -> str:
    if row.fault:
        raise RowError(row.fault)
    qid = _text(row.values.get("qid"), "qid")
    if qid in first_row:
        raise RowError(f"its qid {_short(qid)} is that of row {first_row[qid]} too")
    first_row[qid] = row.number
    return qid


def refuse_bad(sheet: Sheet, path: Path, *, skip_bad: bool) -> None:
    """
    Raises:
        ConfigError: rows are bad and ``skip_bad`` is not given, or no question is left (code ``bad-rows``, ``no-questions``).
    """
    if sheet.bad and not (skip_bad and sheet.questions):
        told = [f"    {row}" for row in sheet.bad[:MOST_TOLD]]
        more = [f"    and {len(sheet.bad) - MOST_TOLD} more"] if len(sheet.bad) > MOST_TOLD else []
        rows = "1 row is" if len(sheet.bad) == 1 else f"{len(sheet.bad)} rows are"
        message = "\n".join([f"{rows} no usable question, of {len(sheet.bad) + len(sheet.questions)} in {path}:", *told, *more])
        raise ConfigError(
            message, code="bad-rows", fix="Correct them, or leave them out with --skip-bad." if sheet.questions else "Check --dataset-path and the file."
        )
    if not sheet.questions:
        raise ConfigError(f"There is no question in {path}", code="no-questions")


def _question(row: Row, qid: str, images: _Images) -> Question:
    values = row.values
    asked = PLACEHOLDER.sub("\n", _text(values.get("question"), "question")).strip()
    if not asked:
        raise RowError("its question is empty")
    answer = _text(values.get("answer"), "answer")
    column = given_choices(values.get("choices") if values.get("choices") is not None else values.get("options"))
    found = find_choices(asked)
    in_text = found.choices if found else None
    same = in_text is not None and column is not None and [*map(fold, in_text.texts)] == [*map(fold, column.texts)]
    if column and in_text and not same and len(column.texts) == len(in_text.texts):
        raise RowError("its choices are others in its text than in its column of choices")
    text, stem, told = asked, found.stem if found else asked, in_text
    if column and not same:
        text = "\n".join([asked, *(f"{letter}. {own}" for letter, own in zip(column.letters, column.texts, strict=True))])
        stem, told = asked, column
    choices, letter = _truth(answer, told, from_text=column is None)
    stem = stem if choices and choices is not IN_THE_IMAGE else asked
    paths = image_paths(values.get("image"))
    images.check(paths)
    return Question(row.number, qid, text, stem, choices, answer, letter, paths, _label(values.get("category")), _label(values.get("source")))


def _truth(answer: str, choices: Choices | None, *, from_text: bool) -> tuple[Choices | None, str | None]:
    """The choices that the true answer is one of, and its letter; none for an open question."""
    words = without_markdown(plain(true_answer(answer)))
    if choices is None:
        lettered = read_whole(words, IN_THE_IMAGE)
        return (IN_THE_IMAGE, lettered.letter) if re.fullmatch("[(]?[A-H][).]?", words.strip()) else (None, None)
    true = read_whole(words, choices)
    if true.kind is Kind.CHOSEN:
        return choices, true.letter
    if true.kind is Kind.NOTHING and from_text:
        return None, None  # what looked like choices was a part of the question: its answer is a number or a text
    several = " names more than one choice" if true.kind is Kind.SEVERAL else f" is none of the choices {choices.letters[0]} to {choices.letters[-1]}"
    raise RowError(f"its answer {_short(answer)}{several}")


class _Images:
    """Looks each file up once."""

    def __init__(self, dataset: Path) -> None:
        self._folder = os.path.abspath(dataset)
        self._faults: dict[str, str] = {}

    def check(self, paths: tuple[str, ...]) -> None:
        for path in paths:
            if path not in self._faults:
                self._faults[path] = self._fault(path)
            if self._faults[path]:
                raise RowError(self._faults[path])

    def _fault(self, path: str) -> str:
        place = within(self._folder, path)
        if place is None:
            return f"its image {_short(path)} lies outside the data set's folder"
        if not os.path.isfile(place):
            return f"its image {_short(path)} {'is not a file' if os.path.exists(place) else 'is missing'} in {self._folder}"
        return ""


def _text(value: Any, name: str) -> str:
    """Ids and answers may be numbers; whole ones may have come as 3.0 through pandas."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or is_nothing(value):
        raise RowError(f"its {name} is {'missing' if is_nothing(value) else _short(value)}")
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    if not text.strip():
        raise RowError(f"its {name} is empty")
    return text


def _label(value: Any) -> str | None:
    return None if is_nothing(value) or not str(value).strip() else str(value)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
