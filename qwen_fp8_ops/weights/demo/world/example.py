"""One example: what the model is shown and asked, what it should think and say, and what a judge needs to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image


@dataclass(frozen=True)
class Label:
    """What one number in a picture's map stands for.

    ``corners`` are those of the whole thing or line of text, as an answer tells them; ``place``: the how manieth thing from the left
    or character of its line it is, from 1; characters of a second line count on from ``SECOND_LINE``.
    """

    corners: Sequence[int]
    place: int
    colour: str = ""
    shape: str = ""
    character: str = ""


SECOND_LINE = 6


@dataclass(frozen=True)
class Picture:
    """``map``: for each pixel 0 or the number of its label, counted from 1; it teaches the vision tower alone."""

    image: Image.Image
    map: Image.Image
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class Turn:
    """``truth`` is what an answer is judged by; its form depends on ``kind``. ``learnt``: pattern of what of the answer can be known, where not all can."""

    kind: str
    question: str
    thought: str
    answer: str
    truth: Any = None
    learnt: str = ""


@dataclass(frozen=True)
class Example:
    """``film``: the pictures are the frames of one clip. ``thinks``: the answers come after a thought."""

    pictures: tuple[Picture, ...]
    turns: tuple[Turn, ...]
    film: bool = False
    thinks: bool = False
    tools: tuple[dict[str, Any], ...] = ()
    text_first: bool = False
