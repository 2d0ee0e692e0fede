"""Clips of 4 to 8 frames: a shape that moves, or one that comes and goes while another stays.

Two frames together are one time step to the model, so what changes, changes between pairs of frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from PIL import Image

from qwen_fp8_ops.weights.demo.world.drawing import draw_scene
from qwen_fp8_ops.weights.demo.world.things import Scene, Thing, make_scene

FRAMES_PER_SECOND = 2
CANVAS = (96, 96)
MOVES = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}


@dataclass(frozen=True)
class Film:
    """``move`` names the way ``hero`` goes, or is empty when it appears at ``start`` and is gone at ``end`` (seconds)."""

    frames: tuple[Scene, ...]
    hero: Thing
    move: str = ""
    start: int = 0
    end: int = 0

    @property
    def seconds(self) -> float:
        return len(self.frames) / FRAMES_PER_SECOND


def make_film(random: Random) -> Film:
    pairs = random.choice((2, 3, 4))
    return _moving(random, pairs) if random.random() < 0.55 else _appearing(random, pairs)


def _moving(random: Random, pairs: int) -> Film:
    move = random.choice(list(MOVES))
    scene = make_scene(random, 1, CANVAS)
    thing = scene.things[0]
    side = thing.box[2] - thing.box[0]
    way, frames = CANVAS[0] - side - 6, []
    begin, end = random.uniform(0, 0.25), random.uniform(0.75, 1)
    across, down = MOVES[move]
    for frame in range(2 * pairs):
        along = 3 + way * (begin + (end - begin) * frame / (2 * pairs - 1))
        if across + down < 0:
            along = CANVAS[0] - side - along
        x, y = (round(along), thing.box[1]) if across else (thing.box[0], round(along))
        frames.append(replace(scene, things=(replace(thing, box=(x, y, x + side, y + side)),)))
    return Film(tuple(frames), thing, move)


def _appearing(random: Random, pairs: int) -> Film:
    scene = make_scene(random, 2, CANVAS)
    while len(scene.things) < 2:
        scene = make_scene(random, 2, CANVAS)
    stays, hero = random.sample(scene.things, 2)
    start = random.randrange(1, pairs)
    end = random.randint(start + 1, pairs)
    alone = replace(scene, things=(stays,))
    frames = tuple(scene if start <= frame // 2 < end else alone for frame in range(2 * pairs))
    return Film(frames, hero, start=start, end=end)


def draw_film(film: Film) -> list[Image.Image]:
    return [draw_scene(frame) for frame in film.frames]
