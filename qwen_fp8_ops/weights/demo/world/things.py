"""Coloured shapes on a canvas: what there is, where it stands, and how it is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

RGB = tuple[int, int, int]
Box = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels of the canvas; x2 and y2 are the first column and row outside."""

COLOURS: dict[str, RGB] = {
    "red": (222, 32, 32),
    "orange": (255, 140, 0),
    "yellow": (252, 222, 30),
    "green": (34, 160, 52),
    "cyan": (0, 205, 215),
    "blue": (36, 68, 224),
    "purple": (128, 40, 165),
    "pink": (255, 125, 195),
}
BACKGROUNDS: dict[str, RGB] = {"white": (255, 255, 255), "black": (8, 8, 8), "grey": (150, 150, 150), "beige": (238, 226, 200), "navy": (16, 22, 64)}
SHAPES = ("circle", "square", "triangle", "star", "cross")
SIZES = {"small": (0.22, 0.29), "large": (0.34, 0.46)}
"""A shape's side as a share of the canvas's shorter side."""

CANVASES = ((128, 128), (128, 128), (128, 96), (96, 128), (160, 96), (96, 160), (160, 128), (128, 160), (96, 96), (192, 96), (160, 160), (192, 128))
"""Width and height in pixels; the first counts twice, it is the most common."""

MARGIN = 3
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")


@dataclass(frozen=True)
class Thing:
    """``turn``: quarter turns that a triangle or a star is drawn with."""

    colour: str
    shape: str
    size: str
    box: Box
    rgb: RGB
    turn: int = 0

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def centre(self) -> tuple[float, float]:
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2


@dataclass(frozen=True)
class Scene:
    """``things`` stand from left to right."""

    width: int
    height: int
    background: str
    rgb: RGB
    things: tuple[Thing, ...]

    def place(self, thing: Thing) -> str:
        """In words, by thirds of the canvas: ``top left``, ``centre``, ``bottom`` ..."""
        x, y = thing.centre
        across = ("left", "", "right")[min(int(3 * x / self.width), 2)]
        down = ("top", "", "bottom")[min(int(3 * y / self.height), 2)]
        return f"{down} {across}".strip() or "centre"

    def relative(self, box: Box) -> list[int]:
        """In the model's coordinates: 0 to 1000 of the canvas's width and height."""
        return relative(box, self.width, self.height)


def relative(box: Sequence[float], width: int, height: int) -> list[int]:
    """x, y, x, y ... of a canvas as 0 to 1000 of its width and height."""
    return [round(1000 * value / (height if place % 2 else width)) for place, value in enumerate(box)]


GRAIN = 20
"""What an answer's coordinates are multiples of, in 1000ths. Half of it, 1 % of the canvas, is what a small model may be wrong by at best."""


def told(box: Sequence[float], width: int, height: int) -> list[int]:
    """As ``relative``, to the grain of the answers."""
    return [GRAIN * round(1000 / GRAIN * value / (height if place % 2 else width)) for place, value in enumerate(box)]


def make_scene(random: Random, count: int | None = None, canvas: tuple[int, int] | None = None) -> Scene:
    """``count`` things, one to four when not given. No two of them touch or have both the same colour and the same shape."""
    width, height = canvas or random.choice(CANVASES)
    if canvas is None and random.random() < 0.15:  # sizes that no patch divides
        width, height = width + random.randint(-15, 15), height + random.randint(-15, 15)
    background = random.choice(list(BACKGROUNDS))
    wanted = count or random.choice((1, 2, 2, 3, 3, 4))
    things: list[Thing] = []
    for _ in range(60):
        if len(things) == wanted:
            break
        things += _try_thing(random, width, height, things)
    return Scene(width, height, background, shade(random, BACKGROUNDS[background]), tuple(sorted(things, key=lambda thing: thing.centre)))


def _try_thing(random: Random, width: int, height: int, others: list[Thing]) -> list[Thing]:
    size = random.choice(list(SIZES))
    side = round(random.uniform(*SIZES[size]) * min(width, height))
    x, y = random.randint(MARGIN, width - side - MARGIN), random.randint(MARGIN, height - side - MARGIN)
    colour, shape = random.choice(list(COLOURS)), random.choice(SHAPES)
    box = (x, y, x + side, y + side)
    # Not nearly above each other either: "from left to right" must have one answer.
    clear = all(not _touch(box, other.box) and abs(x + side / 2 - other.centre[0]) > 6 for other in others)
    if not clear or any((other.colour, other.shape) == (colour, shape) for other in others):
        return []
    return [Thing(colour, shape, size, box, shade(random, COLOURS[colour]), random.randrange(4))]


def _touch(one: Box, other: Box) -> bool:
    return one[0] - MARGIN < other[2] and other[0] - MARGIN < one[2] and one[1] - MARGIN < other[3] and other[1] - MARGIN < one[3]


def shade(random: Random, rgb: RGB, most: int = 12) -> RGB:
    """The same colour, a little lighter or darker in each channel."""
    red, green, blue = (min(255, max(0, value + random.randint(-most, most))) for value in rgb)
    return red, green, blue


def listed(names: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" and {names[-1]}"


def a(name: str) -> str:
    return ("an " if name[0] in "aeiou" else "a ") + name


def number(count: int, noun: str) -> str:
    """``1 circle``, ``3 circles``."""
    return f"{count} {noun if count == 1 else plural(noun)}"


def plural(noun: str) -> str:
    return noun + ("es" if noun.endswith("ss") else "s")
