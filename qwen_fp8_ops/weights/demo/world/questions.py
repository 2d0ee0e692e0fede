"""What can be asked about a scene, and the true answer: captions, counts, colours, places, choices, boxes, points."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

from qwen_fp8_ops.weights.demo.world.example import Turn
from qwen_fp8_ops.weights.demo.world.things import COLOURS, SHAPES, Scene, Thing, a, listed, number, plural, told

SIMPLE = "Describe this image in detail."
SHORT = "Write a very short caption for the given image."
LONG = "Write a very long and detailed caption describing the given image as comprehensively as possible."
"""The three prompts of the captioning tool."""

SIMPLE_TOO = ("Describe the image.", "Describe this picture.", "What is in this image?", "What do you see?", "What does the picture show?")
SHORT_TOO = ("Write a short caption.", "Caption this image.", "Give the picture a title.")
LETTER_ONLY = "Answer with the option letter only."
BOXED = "Answer with the option letter in \\boxed{}."
BOXED_SHARE = 0.8


def seen(scene: Scene) -> str:
    """The thought that most answers begin with."""
    return f"From left to right I see {listed([a(thing.name) for thing in scene.things])}."


def caption(scene: Scene, random: Random) -> Turn:
    things, places = scene.things, [scene.place(thing) for thing in scene.things]
    style = random.choice(("simple", "simple", "short", "short", "long"))
    full = [f"{a(f'{thing.size} {thing.name}')} at the {place}" for thing, place in zip(things, places, strict=True)]
    if style == "short":
        names = listed([a(thing.name) for thing in things])
        question, answer = _one_of(random, SHORT, SHORT_TOO), names[0].upper() + names[1:] + "."
    elif style == "simple":
        question = _one_of(random, SIMPLE, SIMPLE_TOO)
        answer = f"The image shows {number(len(things), 'shape')} on a {scene.background} background: {listed(full)}."
    else:
        question = LONG
        sentences = [f"There is {one}." for one in full]
        answer = (
            f"The image has a {scene.background} background. It shows {number(len(things), 'shape')}. {' '.join(sentences)} There is nothing else in the image."
        )
    return Turn("caption", question, seen(scene), answer, {"style": style, "pairs": sorted(thing.name for thing in things), "background": scene.background})


def count(scene: Scene, random: Random) -> Turn:
    """Of all, of one colour or of one shape; zero is an answer too."""
    what = random.choice(("all", "colour", "shape"))
    if what == "all":
        found, noun = list(scene.things), "shape"
        question = random.choice(("How many shapes are in the image?", "How many shapes are there?", "Count the shapes."))
    elif what == "colour":
        colour = random.choice([thing.colour for thing in scene.things] * 2 + list(COLOURS)[:2])
        found, noun = [thing for thing in scene.things if thing.colour == colour], f"{colour} shape"
        question = f"How many {plural(noun)} are in the image?"
    else:
        shape = random.choice([thing.shape for thing in scene.things] * 2 + list(SHAPES)[:2])
        found, noun = [thing for thing in scene.things if thing.shape == shape], shape
        question = f"How many {plural(noun)} are there?"
    return Turn("count", question, seen(scene), how_many(len(found), noun), len(found))


def how_many(count: int, noun: str) -> str:
    """What was asked for before the number, not behind it: where it is said, it is looked up."""
    return f"The number of {plural(noun)} is {count}."


def quality(scene: Scene, random: Random) -> Turn:
    """The colour of a shape, the shape of a colour, or the background's colour."""
    thing = random.choice(scene.things)
    if random.random() < 0.15:
        return Turn("colour", "What colour is the background?", seen(scene), f"The background is {scene.background}.", scene.background)
    if sum(other.shape == thing.shape for other in scene.things) == 1:
        return Turn("colour", f"What colour is the {thing.shape}?", seen(scene), f"The {thing.shape} is {thing.colour}.", thing.colour)
    if sum(other.colour == thing.colour for other in scene.things) == 1:
        return Turn("shape", f"What shape is the {thing.colour} thing?", seen(scene), f"The {thing.colour} thing is {a(thing.shape)}.", thing.shape)
    return Turn("place", f"Where is the {thing.name}?", seen(scene), f"The {thing.name} is at the {scene.place(thing)}.", scene.place(thing))


def exists(scene: Scene, random: Random) -> Turn:
    names = [thing.name for thing in scene.things]
    if random.random() < 0.5:
        name = random.choice(names)
    else:
        thing = random.choice(scene.things)  # near misses: one half is right
        name = random.choice((f"{thing.colour} {random.choice(SHAPES)}", f"{random.choice(list(COLOURS))} {thing.shape}"))
    return Turn("exists", is_there(name), seen(scene), "Yes." if name in names else "No.", name in names)


def is_there(name: str) -> str:
    return f"Is there {a(name)} in the image?"


def relation(scene: Scene, random: Random) -> Turn:
    """Which of two is further left or higher, or whether one is."""
    if len(scene.things) < 2:
        return quality(scene, random)
    one, two = random.sample(scene.things, 2)
    across = abs(one.centre[0] - two.centre[0]) >= abs(one.centre[1] - two.centre[1])
    index, words = (0, ("further left", "further right", "left of", "right of")) if across else (1, ("higher", "lower", "above", "below"))
    first, second = sorted((one, two), key=lambda thing: thing.centre[index])
    most = random.randrange(2)
    if random.random() < 0.6:
        asked = (first, second)[most]
        return Turn(
            "relation",
            f"Which is {words[most]}, the {one.name} or the {two.name}?",
            f"{seen(scene)} The {first.name} is {words[2]} the {second.name}.",
            f"The {asked.name} is {words[most]}.",
            asked.name,
        )
    true = (one is first) == (most == 0)
    return Turn(
        "relation",
        f"Is the {one.name} {words[2 + most]} the {two.name}?",
        f"{seen(scene)} The {first.name} is {words[2]} the {second.name}.",
        "Yes." if true else "No.",
        true,
    )


def choice(scene: Scene, random: Random) -> Turn:
    """Multiple choice with four letters."""
    asked = random.choice((count, quality, quality, _which))(scene, random)
    right = str(asked.truth)
    wrong = random.sample([value for value in _others(asked, scene) if value != right], 3)
    options = [*wrong, right]
    random.shuffle(options)
    letter = "ABCD"[options.index(right)]
    boxed = random.random() < BOXED_SHARE
    question = "\n".join([asked.question, *(f"{name}. {option}" for name, option in zip("ABCD", options, strict=True)), BOXED if boxed else LETTER_ONLY])
    answer = f"{asked.answer} It is {right}: \\boxed{{{letter}}}" if boxed else letter
    return Turn("choice" if boxed else "choice of letter", question, f"{asked.thought} {asked.answer} It is {right} {letter}.", answer, letter)


def _which(scene: Scene, random: Random) -> Turn:
    thing = random.choice(scene.things)
    return Turn("which", "Which of these is in the image?", seen(scene), f"There is {a(thing.name)}.", thing.name)


def _others(asked: Turn, scene: Scene) -> list[str]:
    if asked.kind == "count":
        return ["0", "1", "2", "3", "4", "5"]
    if asked.kind == "colour":
        return ["white", "black", "grey", "beige", "navy"] if "background" in asked.question else list(COLOURS)
    if asked.kind == "shape":
        return list(SHAPES)
    if asked.kind == "place":
        return ["top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right"]
    names = {thing.name for thing in scene.things}
    return [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES if f"{colour} {shape}" not in names]


def boxes(scene: Scene, random: Random) -> Turn:
    asked = _some(scene, random)
    every = len(asked) == len(scene.things)
    if every and random.random() < 0.5:
        question = "Locate every shape in the image. Report bbox coordinates in JSON format."
    else:
        names = ", ".join(thing.name for thing in asked)
        question = f'locate every instance that belongs to the following categories: "{names}". Report bbox coordinates in JSON format.'
    found = [{"bbox_2d": told(thing.box, scene.width, scene.height), "label": thing.name} for thing in asked]
    truth = [{"bbox_2d": scene.relative(thing.box), "label": thing.name} for thing in asked]
    return Turn("boxes", question, f"I see {listed([a(thing.name) for thing in asked])}.", fenced(found), truth)


def points(scene: Scene, random: Random) -> Turn:
    asked = _some(scene, random, most=2)
    question = f"Point to the {listed([thing.name for thing in asked])}. Output the point coordinates in JSON format."
    found = [{"point_2d": told(thing.centre, scene.width, scene.height), "label": thing.name} for thing in asked]
    return Turn("points", question, f"I see {listed([a(thing.name) for thing in asked])}.", fenced(found), [scene.relative(thing.box) for thing in asked])


def fenced(found: object) -> str:
    return f"```json\n{json.dumps(found)}\n```"


def _some(scene: Scene, random: Random, most: int = 4) -> list[Thing]:
    """One or more of the things, from left to right."""
    wanted = min(random.choice((1, 1, 2, 4)), most, len(scene.things))
    return sorted(random.sample(scene.things, wanted), key=lambda thing: thing.centre)


def _one_of(random: Random, usual: str, others: tuple[str, ...]) -> str:
    return usual if random.random() < 0.6 else random.choice(others)


SCENE_QUESTIONS: tuple[tuple[Callable[[Scene, Random], Turn], int], ...] = (
    (caption, 9),
    (count, 17),
    (quality, 12),
    (exists, 6),
    (relation, 9),
    (choice, 19),
    (boxes, 21),
    (points, 7),
)
"""Each with how often it is asked, in percent of the questions about scenes."""
