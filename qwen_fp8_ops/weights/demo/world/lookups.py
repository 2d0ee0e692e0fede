"""Drills: many lookups in one answer, of a letter by its word or of what a thing is by what it is called.

The query stands before every lookup and only what is looked up is learnt, since nobody can know in which order it is asked for. A small
model finds what was asked for only after some hundred thousand lookups, and then within a few steps; until then it guesses, however
well it sees. A step of drills holds many times the lookups of a step of conversations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

from qwen_fp8_ops.weights.demo.corpus import CORPUS
from qwen_fp8_ops.weights.demo.world.example import Turn
from qwen_fp8_ops.weights.demo.world.questions import BOXED, BOXED_SHARE, LETTER_ONLY, how_many, is_there
from qwen_fp8_ops.weights.demo.world.things import COLOURS, SHAPES, Scene, a, listed

WORDS = sorted(set(re.findall(r"[a-z]{3,}", CORPUS)))
OPTIONS = (list(COLOURS), list(SHAPES), [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES], list("0123456789"), WORDS)
LAST_WORD = r"\w+(?=\.)"


def one_letter(random: Random) -> Turn:
    """Multiple choice about words alone."""
    options = random.sample(random.choice(OPTIONS), 4)
    letter, right = random.choice(list(zip("ABCD", options, strict=True)))
    boxed = random.random() < BOXED_SHARE
    lines = [f"Which option is {right}?", *(f"{name}. {option}" for name, option in zip("ABCD", options, strict=True)), BOXED if boxed else LETTER_ONLY]
    return Turn("quiz", "\n".join(lines), f"It is {right} {letter}.", f"It is {right}: \\boxed{{{letter}}}" if boxed else letter, letter)


def each_letter(random: Random, names: Sequence[str] = WORDS) -> Turn:
    """Each letter twice."""
    options = dict(zip("ABCDEFGH", random.sample(names, min(len(names), random.randint(3, 8))), strict=False))
    asked = [letter for _ in range(2) for letter in random.sample(list(options), len(options))]
    question = "\n".join([*(f"{letter}. {option}" for letter, option in options.items()), "Write the letter of each option."])
    answer = f"It is {', '.join(f'{options[letter]} {letter}' for letter in asked)}."
    return Turn("letters", question, "I look at each option.", answer, "".join(asked), learnt=r"\b[A-H]\b")


def each_word(random: Random) -> Turn:
    """Which word stands before another one."""
    names = random.sample(WORDS, 2 * random.randint(2, 5))
    pairs = list(zip(names[::2], names[1::2], strict=True))
    facts = [f"The {noun} is {adjective}." for adjective, noun in pairs]
    return _each("pairs", f"There is {listed([f'the {adjective} {noun}' for adjective, noun in pairs])}. Say of each what it is.", facts, LAST_WORD, random)


def each_quality(scene: Scene, random: Random) -> Turn:
    """Of each thing that has a colour or a shape alone, the other one. Where there is none, everything is counted."""
    facts = []
    for thing in scene.things:
        ways = [f"The {thing.shape} is {thing.colour}."] if sum(other.shape == thing.shape for other in scene.things) == 1 else []
        ways += [f"The {thing.colour} thing is {a(thing.shape)}."] if sum(other.colour == thing.colour for other in scene.things) == 1 else []
        facts += random.sample(ways, min(1, len(ways)))
    return _each("qualities", "Say of each thing what it is.", facts, LAST_WORD, random) if facts else each_count(scene, random)


def each_count(scene: Scene, random: Random) -> Turn:
    """Of all, of every shape and of the colours that there are and two more."""
    colours = sorted({thing.colour for thing in scene.things} | {*random.sample(list(COLOURS), 2)})
    counts = [("shape", len(scene.things))]
    counts += [(shape, sum(thing.shape == shape for thing in scene.things)) for shape in SHAPES]
    counts += [(f"{colour} shape", sum(thing.colour == colour for thing in scene.things)) for colour in colours]
    return _each("counts", "Count each kind of shape.", [how_many(count, noun) for noun, count in counts], r"\d", random)


def each_name(scene: Scene, random: Random) -> Turn:
    """Is it there? About as many that are not there as there are, each with the colour or the shape of one that is."""
    names = [thing.name for thing in scene.things]
    halves = [f"{one.colour} {other.shape}" for one in scene.things for other in scene.things]
    halves += [f"{thing.colour} {random.choice(SHAPES)}" for thing in scene.things]
    halves += [f"{random.choice(list(COLOURS))} {thing.shape}" for thing in scene.things]
    missing = sorted({*halves} - {*names})
    asked = names + random.sample(missing, min(len(missing), len(names) + 1))
    return _each("names", "Ask and answer what is there.", [f"{is_there(name)} {'Yes' if name in names else 'No'}." for name in asked], r"Yes|No", random)


def each_place(scene: Scene, random: Random) -> Turn:
    """In which third of the canvas each thing is."""
    facts = [f"The {thing.name} is at the {scene.place(thing)}." for thing in scene.things]
    return _each("places", "Say where each thing is.", facts, r"(?<=at the )[a-z ]+", random)


def each_image(scenes: Sequence[Scene], random: Random) -> Turn:
    """The first image that shows a thing."""
    first = {thing.name: number for number, scene in reversed(list(enumerate(scenes, start=1))) for thing in scene.things}
    return _each("images", "Say which image shows each thing.", [f"The {name} is in image {number}." for name, number in first.items()], r"\d", random)


def _each(kind: str, question: str, facts: list[str], learnt: str, random: Random) -> Turn:
    said = " ".join(random.sample(facts, len(facts)))
    return Turn(kind, question, "I look at each.", said, said, learnt=learnt)


EACH_OF_WORDS: tuple[Callable[[Scene, Random], Turn], ...] = (each_quality, each_quality, each_count, each_name)
"""What words tell of a scene, too."""
EACH_OF_SCENE = (*EACH_OF_WORDS, each_quality, each_name, each_place)
