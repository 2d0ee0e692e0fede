"""One example: what the model is shown and asked, what it should think and say, and what a judge needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Label:
    """What one number in a picture's map stands for. ``box`` is of the whole thing or line of text, 0 to 1 of the canvas."""

    box: Box
    colour: str = ""
    shape: str = ""
    character: str = ""


@dataclass(frozen=True)
class Picture:
    """``map``: for each pixel 0 or the number of its label, counted from 1; it teaches the vision tower alone."""

    image: Image.Image
    map: Image.Image
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class Turn:
    """``truth`` is what an answer is judged by; its form depends on ``kind``."""

    kind: str
    question: str
    thought: str
    answer: str
    truth: Any = None


@dataclass(frozen=True)
class Example:
    """``film``: the pictures are the frames of one clip. ``thinks``: the answers come after a thought."""

    pictures: tuple[Picture, ...]
    turns: tuple[Turn, ...]
    film: bool = False
    thinks: bool = False
    tools: tuple[dict[str, Any], ...] = ()
    text_first: bool = False
