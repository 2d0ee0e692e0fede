"""Signs: one or two lines of large text, to be read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random

from PIL import Image, ImageDraw, ImageFont

from qwen_fp8_ops.weights.demo.world.drawing import text_box
from qwen_fp8_ops.weights.demo.world.things import BACKGROUNDS, COLOURS, RGB, Box, shade

WORDS = [
    "STOP",
    "EXIT",
    "OPEN",
    "TAXI",
    "BUS",
    "CAFE",
    "PARK",
    "HOTEL",
    "PIZZA",
    "BAR",
    "SALE",
    "FREE",
    "NORTH",
    "SOUTH",
    "EAST",
    "WEST",
    "MILK",
    "BREAD",
    "FISH",
    "GATE",
    "ZOO",
    "BANK",
    "SHOP",
    "KEY",
]
CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CANVASES = ((128, 64), (160, 64), (192, 64), (128, 96), (160, 96), (192, 96), (128, 128))


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Aileron, which Pillow brings along; it is in the public domain."""
    found = ImageFont.load_default(size)
    assert isinstance(found, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return found


@dataclass(frozen=True)
class Line:
    text: str
    at: tuple[int, int]
    size: int
    box: Box


@dataclass(frozen=True)
class Sign:
    width: int
    height: int
    paper: RGB
    ink: RGB
    lines: tuple[Line, ...]


def make_sign(random: Random) -> Sign:
    dark = random.random() < 0.4
    paper = BACKGROUNDS[random.choice(("black", "navy"))] if dark else BACKGROUNDS[random.choice(("white", "beige"))]
    ink = random.choice(((255, 255, 255), COLOURS["yellow"])) if dark else random.choice(((0, 0, 0), COLOURS["red"], COLOURS["blue"]))
    width, height = random.choice(CANVASES)
    rows = 2 if height >= 96 and random.random() < 0.5 else 1
    lines = []
    for row in range(rows):
        text = random.choice(WORDS) if random.random() < 0.5 else "".join(random.choice("0123456789") for _ in range(random.randint(1, 4)))
        band = height // rows
        size = random.randint(26, 40)
        while size > 20 and font(size).getlength(text) > width - 12:
            size -= 1
        left, top, right, bottom = text_box(font(size), text, (0, 0))
        x = random.randint(4, max(4, width - (right - left) - 5)) - left
        y = row * band + random.randint(2, max(2, band - (bottom - top) - 3)) - top
        lines.append(Line(text, (x, y), size, text_box(font(size), text, (x, y))))
    return Sign(width, height, shade(random, paper), shade(random, ink), tuple(lines))


def draw_sign(sign: Sign) -> Image.Image:
    image = Image.new("RGB", (sign.width, sign.height), sign.paper)
    pen = ImageDraw.Draw(image)
    for line in sign.lines:
        pen.text(line.at, line.text, font=font(line.size), fill=sign.ink)
    return image


@dataclass(frozen=True)
class Letter:
    """``place`` in its line, from 1."""

    character: str
    place: int
    box: Box
    line: Line


def letters(sign: Sign) -> list[Letter]:
    found = []
    for line in sign.lines:
        face = font(line.size)
        for place, character in enumerate(line.text, start=1):
            x = round(line.at[0] + face.getlength(line.text[: place - 1]))
            found.append(Letter(character, place, text_box(face, character, (x, line.at[1])), line))
    return found


def map_sign(sign: Sign) -> Image.Image:
    """For each pixel the number of the letter whose box it is in, counted from 1 as ``letters`` lists them; 0 is paper."""
    image = Image.new("L", (sign.width, sign.height))
    pen = ImageDraw.Draw(image)
    for number, letter in enumerate(letters(sign), start=1):
        x1, y1, x2, y2 = letter.box
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), fill=number)
    return image
