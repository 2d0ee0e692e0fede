"""Examples without end: from a random generator to something shown, asked, thought and answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from qwen_fp8_ops.weights.demo.world import lookups
from qwen_fp8_ops.weights.demo.world.drawing import draw_scene, map_scene
from qwen_fp8_ops.weights.demo.world.example import SECOND_LINE, Example, Label, Picture, Turn
from qwen_fp8_ops.weights.demo.world.films import draw_film, make_film
from qwen_fp8_ops.weights.demo.world.questions import SCENE_QUESTIONS, caption, choice, count, exists, fenced, how_many, quality
from qwen_fp8_ops.weights.demo.world.screens import draw_screen, make_screen, map_screen
from qwen_fp8_ops.weights.demo.world.signs import draw_sign, letters, make_sign, map_sign
from qwen_fp8_ops.weights.demo.world.things import Scene, a, listed, make_scene, relative, told

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


Maker = Callable[[Random, int], Example]

MOST_TURNS = 5
"""Of a conversation about one picture. The same picture with another question is what teaches to look for what was asked."""


def scene_example(random: Random, turns: int = 1) -> Example:
    scene = _busy_scene(random)
    asks = random.choices([ask for ask, _ in SCENE_QUESTIONS], [often for _, often in SCENE_QUESTIONS], k=turns)
    return about_scene(scene, _different([ask(scene, random) for ask in asks]), random)


def _busy_scene(random: Random) -> Scene:
    """Of a few scenes the one in which most things share a colour or a shape: where all differ, every count is one."""
    return max((make_scene(random) for _ in range(random.choice((1, 3)))), key=lambda scene: 2 * len(scene.things) - len({*_looks(scene)}))


def _looks(scene: Scene) -> list[str]:
    return [look for thing in scene.things for look in (thing.colour, thing.shape)]


def about_scene(scene: Scene, turns: list[Turn], random: Random) -> Example:
    return _example(random, [_scene_picture(scene, random)], turns)


def sign_example(random: Random, turns: int = 1) -> Example:
    sign = make_sign(random)
    text = "\n".join(line.text for line in sign.lines)
    thought = f"It says {' and '.join(line.text for line in sign.lines)}."
    question = random.choice(
        ("Read all the text in the image.", "Please output only the text content from the image without any additional descriptions or formatting.")
    )
    read = Turn("text", question, thought, text, text)
    question = "Spotting all the text in the image with line-level, and output in JSON format as [{'bbox_2d': [x1, y1, x2, y2], 'text_content': 'text'}, ...]."
    found = [{"bbox_2d": told(line.box, sign.width, sign.height), "text_content": line.text} for line in sign.lines]
    truth = [{"bbox_2d": relative(line.box, sign.width, sign.height), "text_content": line.text} for line in sign.lines]
    spotted = Turn("text-boxes", question, thought, fenced(found), truth)
    labels = [
        Label(told(letter.line.box, sign.width, sign.height), letter.place + SECOND_LINE * sign.lines.index(letter.line), character=letter.character)
        for letter in letters(sign)
    ]
    asked = [read, spotted] if random.random() < 0.7 else [spotted, read]
    return _example(random, [Picture(draw_sign(sign), map_sign(sign), tuple(labels))], asked[:turns])


def screen_example(random: Random, turns: int = 1) -> Example:
    screen = make_screen(random)
    offered = random.random() < 0.4
    names = listed([a(f"{other.colour} button") for other in screen.buttons])
    asked = []
    for button in random.sample(screen.buttons, min(turns, len(screen.buttons))):
        point = told(button.centre, screen.width, screen.height)
        call = {"name": "computer_use", "arguments": {"action": "left_click", "coordinate": point}}
        question = f"{random.choice(('Click', 'click', 'Press'))} the {button.colour} button."
        asked.append(
            Turn(
                "click",
                question if offered else f"{question} Answer with a computer_use tool call.",
                f"From left to right I see {names}.",
                f"<tool_call>\n{json.dumps(call)}\n</tool_call>",
                relative(button.box, screen.width, screen.height),
            )
        )
    labels = [Label(told(other.box, screen.width, screen.height), place, other.colour, "button") for place, other in enumerate(screen.buttons, start=1)]
    return _example(random, [Picture(draw_screen(screen), map_screen(screen), tuple(labels))], asked, tools=(COMPUTER_USE,) if offered else ())


def film_example(random: Random, turns: int = 1) -> Example:
    film = make_film(random)
    hero = film.hero
    if film.move:
        question = random.choice(("Which way does the shape move?", "In which direction does the shape move?", "Describe the video in one sentence."))
        asked = [Turn("direction", question, f"I see {a(hero.name)}. It moves {film.move}.", f"The {hero.name} moves {film.move}.", film.move)]
    else:
        question = random.choice(("What appears in the video?", "Which shape appears?"))
        named = a(hero.name)
        appears = Turn("appears", question, f"At the beginning there is no {hero.name}.", f"{named[0].upper()}{named[1:]} appears.", hero.name)
        truth = {"start": film.start, "end": film.end}
        question = f"When is the {hero.name} visible? Output the start and end time in seconds as JSON."
        times = Turn("times", question, f"The {hero.name} appears at {film.start} and is gone at {film.end}.", json.dumps(truth), truth)
        asked = [appears, times] if random.random() < 0.5 else [times, appears]
    pictures = [Picture(image, map_scene(frame), _labels(frame)) for image, frame in zip(draw_film(film), film.frames, strict=True)]
    return _example(random, pictures, asked[:turns], film=True)


def several_example(random: Random, turns: int = 1) -> Example:
    """Two or three pictures at once: each described, one of them, or the one that shows something."""
    scenes = _several_scenes(random)
    asked = _different([_about_several(scenes, random) for _ in range(turns)])
    return _example(random, [_scene_picture(scene, random) for scene in scenes], asked)


def _several_scenes(random: Random) -> list[Scene]:
    return [make_scene(random, random.choice((1, 1, 2, 3)), (96, 96)) for _ in range(random.choice((2, 2, 3)))]


def _about_several(scenes: list[Scene], random: Random) -> Turn:
    ordinals = ("first", "second", "third")
    names = [listed([a(thing.name) for thing in scene.things]) for scene in scenes]
    which = random.randrange(len(scenes))
    everything = " ".join(f"Image {place}: {name}." for place, name in enumerate(names, start=1))
    truth = [sorted(thing.name for thing in scene.things) for scene in scenes]
    what = random.randrange(4)
    if what == 0:
        return Turn("several", "Describe each image.", everything, everything, truth)
    if what == 1:
        answer = names[which][0].upper() + names[which][1:] + "."
        return Turn("several", f"What is in the {ordinals[which]} image?", everything, answer, [truth[which]])
    if what == 2:
        count = len(scenes[which].things)
        return Turn("several-count", f"How many shapes are in the {ordinals[which]} image?", everything, how_many(count, "shape"), count)
    thing = random.choice(scenes[which].things)
    first = next(place for place, scene in enumerate(scenes) if thing.name in [other.name for other in scene.things])
    return Turn("several-which", f"Which image shows {a(thing.name)}?", everything, f"Image {first + 1}.", first + 1)


def chat_example(random: Random, _turns: int = 1) -> Example:
    """Without a picture; half of them ask about one, as people do who forgot to attach it."""
    if random.random() < 0.5:
        return _example(random, [], [Turn("chat", random.choice(GREETINGS), "The user greets me.", HELLO)])
    question = caption(make_scene(random), random).question
    return _example(random, [], [Turn("chat", question, "There is no image.", "There is no image. Please show me one.")])


def quiz_example(random: Random, turns: int = 1) -> Example:
    """Multiple choice about words alone: which letter stands before a word can be learnt without looking."""
    makers = (lookups.one_letter, lambda random: lookups.each_letter(random, random.choice(lookups.OPTIONS)))
    return _example(random, [], [random.choice(makers)(random) for _ in range(turns)])


def told_example(random: Random, turns: int = 1) -> Example:
    """Scenes in words instead of pictures: what follows from what one sees can be learnt without looking too."""
    return _example(random, [], [_told(random) for _ in range(turns)])


def _told(random: Random) -> Turn:
    while True:
        scene = _busy_scene(random)
        turn = random.choice((count, quality, exists, choice, *lookups.EACH_OF_WORDS))(scene, random)
        if "Where" not in turn.question and "background" not in turn.question:
            return _in_words(scene, turn)


def _in_words(scene: Scene, turn: Turn) -> Turn:
    shown = f"A picture shows {listed([a(thing.name) for thing in scene.things])}."
    return replace(turn, kind=f"told {turn.kind}", question=f"{shown} {turn.question}")


def scene_drill(random: Random, _turns: int = 1) -> Example:
    scene = _full_scene(random)
    return about_scene(scene, [random.choice(lookups.EACH_OF_SCENE)(scene, random)], random)


def _full_scene(random: Random) -> Scene:
    return make_scene(random, random.choice((2, 3, 4, 4)))


def several_drill(random: Random, _turns: int = 1) -> Example:
    scenes = _several_scenes(random)
    return _example(random, [_scene_picture(scene, random) for scene in scenes], [lookups.each_image(scenes, random)])


def told_drill(random: Random, _turns: int = 1) -> Example:
    scene = _full_scene(random)
    return _example(random, [], [_in_words(scene, random.choice(lookups.EACH_OF_WORDS)(scene, random))])


def word_drill(random: Random, _turns: int = 1) -> Example:
    return _example(random, [], [random.choice((lookups.each_letter, lookups.each_word, lookups.each_word))(random)])


MAKERS = (
    (scene_example, 45),
    (sign_example, 28),
    (film_example, 4),
    (screen_example, 5),
    (several_example, 4),
    (quiz_example, 6),
    (told_example, 8),
    (scene_drill, 6),
    (several_drill, 2),
    (chat_example, 1),
)
LOOKED_AT = ((scene_example, 30), (sign_example, 60), (screen_example, 10))
"""What the vision tower alone learns from: signs are the hardest to see."""
LOOKED_UP = ((scene_drill, 40), (several_drill, 5), (told_drill, 28), (word_drill, 27))
"""What teaches the language model to find what was asked for, in pictures and in words."""
NOTHING = r"(?!)"
"""Matches nowhere: of such an answer nothing is learnt."""


def make(random: Random) -> Example:
    """A conversation of one to ``MOST_TURNS`` questions, fewer where there is less to ask."""
    return _one_of(MAKERS, random)(random, random.randint(1, MOST_TURNS))


def make_to_look_at(random: Random) -> Example:
    """For the vision tower alone: there is nothing to say."""
    example = _one_of(LOOKED_AT, random)(random, 1)
    return replace(example, turns=tuple(replace(turn, learnt=NOTHING) for turn in example.turns))


def make_to_look_up(random: Random) -> Example:
    """For both, one drill each; ``lookups`` says why."""
    return _one_of(LOOKED_UP, random)(random, 1)


def _one_of(makers: tuple[tuple[Maker, int], ...], random: Random) -> Maker:
    return random.choices([maker for maker, _ in makers], [often for _, often in makers])[0]


def _different(turns: list[Turn]) -> list[Turn]:
    """No question twice."""
    return list({turn.question: turn for turn in turns}.values())


def _example(random: Random, pictures: list[Picture], turns: list[Turn], *, film: bool = False, tools: tuple[dict[str, Any], ...] = ()) -> Example:
    return Example(tuple(pictures), tuple(turns), film, random.random() < 0.5, tools, text_first=random.random() < 0.2)


def _scene_picture(scene: Scene, random: Random) -> Picture:
    return Picture(draw_scene(scene, random), map_scene(scene), _labels(scene))


def _labels(scene: Scene) -> tuple[Label, ...]:
    return tuple(Label(told(thing.box, scene.width, scene.height), place, thing.colour, thing.shape) for place, thing in enumerate(scene.things, start=1))
