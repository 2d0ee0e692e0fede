"""The questions of the evaluation: scenes, signs, clips and screens that training never sees."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from qwen_fp8_ops.weights.demo.world import examples, questions
from qwen_fp8_ops.weights.demo.world.example import Example
from qwen_fp8_ops.weights.demo.world.things import make_scene

SEED = (1 << 40) + 1
"""The trainer's streams stay below."""


def exam(scenes: int) -> Iterator[Example]:
    """Of each scene a caption, a count, a choice and boxes, and one of the other questions; and for every third scene one of each other kind of picture."""
    for number in range(scenes):
        random = Random(SEED + number)
        scene = make_scene(random)
        other = (questions.quality, questions.exists, questions.relation, questions.points)[number % 4]
        for ask in (questions.caption, questions.count, questions.choice, questions.boxes, other):
            yield examples.about_scene(scene, [ask(scene, random)], random)
        if number % 3 == 0:
            for make in (examples.sign_example, examples.film_example, examples.screen_example, examples.several_example):
                yield make(random)
