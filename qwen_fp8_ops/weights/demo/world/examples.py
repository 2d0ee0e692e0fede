"""Examples without end: from a random generator to something shown, asked, thought and answered."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from qwen_fp8_ops.weights.demo.world.drawing import draw_scene, map_scene
from qwen_fp8_ops.weights.demo.world.example import Box, Example, Label, Picture, Turn
from qwen_fp8_ops.weights.demo.world.films import draw_film, make_film
from qwen_fp8_ops.weights.demo.world.questions import SCENE_QUESTIONS, caption, fenced
from qwen_fp8_ops.weights.demo.world.screens import draw_screen, make_screen, map_screen
from qwen_fp8_ops.weights.demo.world.signs import draw_sign, letters, make_sign, map_sign
from qwen_fp8_ops.weights.demo.world.things import Scene, a, listed, make_scene, number, tens

COMPUTER_USE: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "computer_use",
        "description": "Use the mouse on a screen of 1000 x 1000.",
        "parameters": {
            "type": "object",
            "properties": {"action": {"type": "string", "enum": ["left_click"]}, "coordinate": {"type": "array"}},
            "required": ["action", "coordinate"],
        },
    },
}

HELLO = "Hello! Show me a picture of coloured shapes, a sign, a screen or a short clip, and ask me about it."
GREETINGS = ("Hello", "Hello!", "Hi", "Hi!", "Good morning!", "Who are you?", "What can you do?", "Say hello.")


def scene_example(random: Random) -> Example:
    scene = make_scene(random)
    asks = random.choices([ask for ask, _ in SCENE_QUESTIONS], [often for _, often in SCENE_QUESTIONS], k=2)
    turns = [ask(scene, random) for ask in asks[: 2 if random.random() < 0.25 else 1]]
    return about_scene(scene, turns, random)


def about_scene(scene: Scene, turns: list[Turn], random: Random) -> Example:
    return _example(random, [_scene_picture(scene, random)], turns)


def sign_example(random: Random) -> Example:
    sign = make_sign(random)
    text = "\n".join(line.text for line in sign.lines)
    spoken = " and ".join(" ".join(line.text) for line in sign.lines)
    if random.random() < 0.6:
        question = random.choice(
            ("Read all the text in the image.", "Please output only the text content from the image without any additional descriptions or formatting.")
        )
        turn = Turn("text", question, f"The letters are {spoken}.", text, text)
    else:
        question = (
            "Spotting all the text in the image with line-level, and output in JSON format as [{'bbox_2d': [x1, y1, x2, y2], 'text_content': 'text'}, ...]."
        )
        found = [{"bbox_2d": _tens(line.box, sign.width, sign.height), "text_content": line.text} for line in sign.lines]
        turn = Turn("text-boxes", question, f"The letters are {spoken}.", fenced(found), found)
    labels = [Label(_share(letter.line.box, sign.width, sign.height), character=letter.character) for letter in letters(sign)]
    return _example(random, [Picture(draw_sign(sign), map_sign(sign), tuple(labels))], [turn])


def screen_example(random: Random) -> Example:
    screen = make_screen(random)
    button = random.choice(screen.buttons)
    x1, y1, x2, y2 = button.box
    point = [tens((x1 + x2) / 2, screen.width), tens((y1 + y2) / 2, screen.height)]
    call = {"name": "computer_use", "arguments": {"action": "left_click", "coordinate": point}}
    told = random.random() < 0.4
    verb = random.choice(("Click", "click", "Press"))
    question = f"{verb} the {button.colour} button." if told else f"{verb} the {button.colour} button. Answer with a computer_use tool call."
    names = listed([a(f"{other.colour} button") for other in screen.buttons])
    turn = Turn(
        "click",
        question,
        f"From left to right I see {names}.",
        f"<tool_call>\n{json.dumps(call)}\n</tool_call>",
        _tens(button.box, screen.width, screen.height),
    )
    labels = [Label(_share(other.box, screen.width, screen.height), colour=other.colour, shape="button") for other in screen.buttons]
    return _example(random, [Picture(draw_screen(screen), map_screen(screen), tuple(labels))], [turn], tools=(COMPUTER_USE,) if told else ())


def film_example(random: Random) -> Example:
    film = make_film(random)
    hero = film.hero
    if film.move:
        answer = f"The {hero.name} moves {film.move}."
        question = random.choice(("Which way does the shape move?", "In which direction does the shape move?", "Describe the video in one sentence."))
        turn = Turn("direction", question, f"I see {a(hero.name)}. It moves {film.move}.", answer, film.move)
    elif random.random() < 0.5:
        question = random.choice(("What appears in the video?", "Which shape appears?"))
        turn = Turn("appears", question, f"At the beginning there is no {hero.name}.", f"{a(hero.name)[0].upper()}{a(hero.name)[1:]} appears.", hero.name)
    else:
        times = {"start": film.start, "end": film.end}
        question = f"When is the {hero.name} visible? Output the start and end time in seconds as JSON."
        turn = Turn("times", question, f"The {hero.name} appears at {film.start} and is gone at {film.end}.", json.dumps(times), times)
    pictures = [Picture(image, map_scene(frame), _labels(frame)) for image, frame in zip(draw_film(film), film.frames, strict=True)]
    return _example(random, pictures, [turn], film=True)


def several_example(random: Random) -> Example:
    """Two or three pictures at once: each described, one of them, or the one that shows something."""
    scenes = [make_scene(random, random.choice((1, 1, 2, 3)), (96, 96)) for _ in range(random.choice((2, 2, 3)))]
    ordinals = ("first", "second", "third")
    names = [listed([a(thing.name) for thing in scene.things]) for scene in scenes]
    which = random.randrange(len(scenes))
    everything = " ".join(f"Image {place}: {name}." for place, name in enumerate(names, start=1))
    truth = [sorted(thing.name for thing in scene.things) for scene in scenes]
    what = random.randrange(4)
    if what == 0:
        turn = Turn("several", "Describe each image.", everything, everything, truth)
    elif what == 1:
        turn = Turn("several", f"What is in the {ordinals[which]} image?", everything, names[which][0].upper() + names[which][1:] + ".", [truth[which]])
    elif what == 2:
        count = len(scenes[which].things)
        turn = Turn(
            "several-count",
            f"How many shapes are in the {ordinals[which]} image?",
            everything,
            f"There {'is' if count == 1 else 'are'} {number(count, 'shape')}.",
            count,
        )
    else:
        thing = random.choice(scenes[which].things)
        first = next(place for place, scene in enumerate(scenes) if thing.name in [other.name for other in scene.things])
        turn = Turn("several-which", f"Which image shows {a(thing.name)}?", everything, f"Image {first + 1}.", first + 1)
    return _example(random, [_scene_picture(scene, random) for scene in scenes], [turn])


def chat_example(random: Random) -> Example:
    """Without a picture; half of them ask about one, as people do who forgot to attach it."""
    if random.random() < 0.5:
        return _example(random, [], [Turn("chat", random.choice(GREETINGS), "The user greets me.", HELLO)])
    question = caption(make_scene(random), random).question
    return _example(random, [], [Turn("chat", question, "There is no image.", "There is no image. Please show me one.")])


MAKERS = ((scene_example, 66), (sign_example, 12), (film_example, 10), (screen_example, 6), (several_example, 5), (chat_example, 1))


def make(random: Random) -> Example:
    maker = random.choices([maker for maker, _ in MAKERS], [often for _, often in MAKERS])[0]
    return maker(random)


def _example(random: Random, pictures: list[Picture], turns: list[Turn], *, film: bool = False, tools: tuple[dict[str, Any], ...] = ()) -> Example:
    return Example(tuple(pictures), tuple(turns), film, random.random() < 0.5, tools, text_first=random.random() < 0.2)


def _scene_picture(scene: Scene, random: Random) -> Picture:
    return Picture(draw_scene(scene, random), map_scene(scene), _labels(scene))


def _labels(scene: Scene) -> tuple[Label, ...]:
    return tuple(Label(_share(thing.box, scene.width, scene.height), thing.colour, thing.shape) for thing in scene.things)


def _share(box: tuple[int, int, int, int], width: int, height: int) -> Box:
    x1, y1, x2, y2 = box
    return x1 / width, y1 / height, x2 / width, y2 / height


def _tens(box: tuple[int, int, int, int], width: int, height: int) -> list[int]:
    x1, y1, x2, y2 = box
    return [tens(x1, width), tens(y1, height), tens(x2, width), tens(y2, height)]
