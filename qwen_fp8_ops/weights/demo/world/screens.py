"""Screens with coloured buttons, to be clicked."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from qwen_fp8_ops.weights.demo.world.things import COLOURS, RGB, Box, shade

CANVASES = ((160, 128), (192, 128), (128, 128), (160, 96), (192, 96))
GAP = 8


@dataclass(frozen=True)
class Button:
    colour: str
    rgb: RGB
    box: Box

    @property
    def centre(self) -> tuple[float, float]:
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2


@dataclass(frozen=True)
class Screen:
    width: int
    height: int
    rgb: RGB
    bar: RGB
    buttons: tuple[Button, ...]


def make_screen(random: Random) -> Screen:
    """Two to four buttons, each of another colour, anywhere below the title bar."""
    width, height = random.choice(CANVASES)
    colours = random.sample(list(COLOURS), random.choice((2, 3, 3, 4)))
    buttons: list[Button] = []
    for colour in colours:
        for _ in range(40):
            wide, high = random.randint(34, 62), random.randint(18, 28)
            x, y = random.randint(4, width - wide - 4), random.randint(18, height - high - 4)
            box = (x, y, x + wide, y + high)
            if all(x - GAP > b.box[2] or box[2] + GAP < b.box[0] or y - GAP > b.box[3] or box[3] + GAP < b.box[1] for b in buttons):
                buttons.append(Button(colour, shade(random, COLOURS[colour]), box))
                break
    return Screen(width, height, shade(random, (232, 234, 238)), shade(random, (70, 78, 92)), tuple(sorted(buttons, key=lambda button: button.box)))


def draw_screen(screen: Screen) -> Image.Image:
    image = Image.new("RGB", (screen.width, screen.height), screen.rgb)
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, screen.width, 11), fill=screen.bar)
    for x in (6, 14, 22):
        pen.ellipse((x - 2, 4, x + 2, 8), fill=(240, 240, 240))
    for button in screen.buttons:
        x1, y1, x2, y2 = button.box
        pen.rounded_rectangle((x1, y1, x2 - 1, y2 - 1), 6, fill=button.rgb, outline=(60, 60, 60))
    return image


def map_screen(screen: Screen) -> Image.Image:
    """For each pixel the number of its button, counted from 1."""
    image = Image.new("L", (screen.width, screen.height))
    pen = ImageDraw.Draw(image)
    for number, button in enumerate(screen.buttons, start=1):
        x1, y1, x2, y2 = button.box
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), fill=number)
    return image
