"""Scenes, signs and screens as pictures, and beside each a map of what every pixel shows."""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from qwen_fp8_ops.weights.demo.world.things import Box, Scene, Thing

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

Point = tuple[float, float]


def draw_scene(scene: Scene, random: Random | None = None) -> Image.Image:
    """The picture. With ``random`` some are drawn at twice the size and reduced, which gives soft edges as photographs have."""
    scale = 2 if random and random.random() < 0.3 else 1
    image = Image.new("RGB", (scene.width * scale, scene.height * scale), scene.rgb)
    pen = ImageDraw.Draw(image)
    for thing in scene.things:
        draw_thing(pen, thing, thing.rgb, scale)
    return image if scale == 1 else image.resize((scene.width, scene.height), Image.Resampling.BOX)


def map_scene(scene: Scene) -> Image.Image:
    """For each pixel the number of the thing it belongs to, counted from 1; 0 is background."""
    image = Image.new("L", (scene.width, scene.height))
    pen = ImageDraw.Draw(image)
    for number, thing in enumerate(scene.things, start=1):
        draw_thing(pen, thing, number, 1)
    return image


def draw_thing(pen: ImageDraw.ImageDraw, thing: Thing, fill: tuple[int, int, int] | int, scale: int) -> None:
    x1, y1, x2, y2 = (value * scale for value in thing.box)
    inside = (x1, y1, x2 - 1, y2 - 1)
    if thing.shape == "circle":
        pen.ellipse(inside, fill=fill)
    elif thing.shape == "square":
        pen.rectangle(inside, fill=fill)
    elif thing.shape == "cross":
        third = (x2 - x1) / 3
        pen.rectangle((x1 + third, y1, x2 - 1 - third, y2 - 1), fill=fill)
        pen.rectangle((x1, y1 + third, x2 - 1, y2 - 1 - third), fill=fill)
    else:
        corners = _triangle() if thing.shape == "triangle" else _star()
        for _ in range(thing.turn):
            corners = [(1 - y, x) for x, y in corners]
        pen.polygon([(x1 + x * (x2 - 1 - x1), y1 + y * (y2 - 1 - y1)) for x, y in corners], fill=fill)


def _triangle() -> list[Point]:
    return [(0.5, 0.0), (1.0, 1.0), (0.0, 1.0)]


def _star() -> list[Point]:
    """Five points, stretched to fill its box."""
    corners = []
    for step in range(10):
        radius = 1.0 if step % 2 == 0 else 0.42
        angle = math.pi * step / 5
        corners.append((radius * math.sin(angle), -radius * math.cos(angle)))
    left, right = min(x for x, _ in corners), max(x for x, _ in corners)
    top, bottom = min(y for _, y in corners), max(y for _, y in corners)
    return [((x - left) / (right - left), (y - top) / (bottom - top)) for x, y in corners]


def text_box(font: FreeTypeFont, text: str, at: tuple[int, int]) -> Box:
    left, top, right, bottom = font.getbbox(text)
    return round(at[0] + left), round(at[1] + top), round(at[0] + right), round(at[1] + bottom)
