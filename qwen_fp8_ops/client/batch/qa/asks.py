"""From questions to requests: each asked once, several times, or once for every rotation of its choices.

The id of a request is the question's id; where there may be several of one question, ``#r1.2`` stands behind it: rotation 1, time 2.
Nothing of that kind is ever cut off an id again, so that a question's own id may hold anything.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qwen_fp8_ops.client.batch.inputs import Shard
from qwen_fp8_ops.client.batch.item import Item, Source
from qwen_fp8_ops.client.batch.qa.choices import Choices, find_choices
from qwen_fp8_ops.client.batch.qa.questions import Question

CHOICE_INSTRUCTION = "Answer with the option letter in \\boxed{}."
OPEN_INSTRUCTION = "Give the final answer in \\boxed{}."
SAYS_HOW = re.compile(
    r"boxed|\b(?:option|choice|answer|single|correct)(?:'s)? letter\b|\bletter (?:of the|only)\b"
    r"|\banswer (?:with|using|directly|in|only|yes|the question)\b|\b(?:best|correct) (?:answer|option) is:?\s*$|\banswer:\s*$|请",
    re.IGNORECASE,
)
"""Words of a question that says itself how it is to be answered."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. ``letter`` is the true one among ``choices`` as they stand in this rotation."""

    item: Item
    rotation: int
    time: int
    choices: Choices | None
    letter: str | None


@dataclass(frozen=True)
class Asks:
    """All requests of a run, made when their turn comes; ``Inputs`` of the common engine.

    Args:
        dataset: the folder that the images' paths begin at.
        times: how often each question is asked; above 1 each time has a seed of its own.
        circular: ask with every rotation of the choices.
        instruction: stands behind every question; None chooses one where the question does not say how to answer.
        seed: of the first time, where there are several.
    """

    questions: Sequence[Question]
    dataset: Path
    times: int = 1
    circular: bool = False
    instruction: str | None = None
    seed: int = 0

    def __iter__(self) -> Iterator[Item]:
        return (ask.item for question in self.questions for ask in self.of(question))

    def count(self) -> int:
        return sum(self.rotations(question) for question in self.questions) * self.times

    def part(self, limit: int | None, shard: Shard | None) -> Asks:
        """Of the first ``limit`` questions those of one share. Whole questions: the requests of one are never parted."""
        first = self.questions[:limit]
        return replace(self, questions=[question for question in first if shard is None or shard.holds(question.qid)])

    def rotations(self, question: Question) -> int:
        """1 for what cannot be rotated: open questions, choices that stand in the image, and such as ``all of the above``."""
        if not (self.circular and question.choices and question.choices.may_rotate):
            return 1
        found = find_choices(question.text)  # a choice from a column may hold what looks like a choice itself
        return len(question.choices.texts) if found and found.choices == question.choices else 1

    def of(self, question: Question) -> Iterator[Ask]:
        media = tuple(Source(os.path.join(self.dataset, path)) for path in question.images)
        for rotation in range(self.rotations(question)):
            choices, letter = _rotated(question, rotation)
            prompt = self._prompt(question, choices if rotation else None)
            for time in range(1, self.times + 1):
                id = f"{question.qid}#r{rotation}.{time}" if self.times > 1 or self.circular else question.qid
                yield Ask(Item(id, prompt, media, self.seed + time - 1 if self.times > 1 else None), rotation, time, choices, letter)

    def _prompt(self, question: Question, choices: Choices | None) -> str:
        text = with_choices(question.text, choices) if choices else question.text
        instruction = self.instruction
        if instruction is None:
            instruction = "" if _says_how(question) else CHOICE_INSTRUCTION if question.choices else OPEN_INSTRUCTION
        return f"{text}\n{instruction}" if instruction else text


def with_choices(text: str, choices: Choices) -> str:
    """A question's text with other texts behind its letters; everything else stays."""
    found = find_choices(text)
    assert found is not None  # ``Question.text`` holds its choices
    return found.with_texts(choices.texts)


def _rotated(question: Question, rotation: int) -> tuple[Choices | None, str | None]:
    if question.choices is None or question.letter is None or not rotation:
        return question.choices, question.letter
    letters = question.choices.letters
    return question.choices.rotated(rotation), letters[(letters.index(question.letter) + rotation) % len(letters)]


def _says_how(question: Question) -> bool:
    """Looked for where instructions stand: behind the choices, and in the question itself; a choice's text may hold any word."""
    found = find_choices(question.text) if question.choices else None
    return bool(SAYS_HOW.search(f"{question.stem}\n{found.tail if found else ''}"))
