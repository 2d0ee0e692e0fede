"""The demo's world: reproducible, drawn as it is told, and asked with true answers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from random import Random

import pytest

from qwen_fp8_ops.weights.demo.evaluation.exam import exam
from qwen_fp8_ops.weights.demo.evaluation.judge import PAIR, judge, overlap
from qwen_fp8_ops.weights.demo.world import examples, lookups, questions
from qwen_fp8_ops.weights.demo.world.drawing import draw_scene, map_scene
from qwen_fp8_ops.weights.demo.world.films import FRAMES_PER_SECOND, make_film
from qwen_fp8_ops.weights.demo.world.screens import make_screen
from qwen_fp8_ops.weights.demo.world.signs import draw_sign, make_sign, map_sign
from qwen_fp8_ops.weights.demo.world.things import COLOURS, SHAPES, make_scene

np = pytest.importorskip("numpy", reason="needs the cpu extra")
pytest.importorskip("PIL", reason="needs the cpu extra")

SEEDS = range(40)


def test_a_seed_names_an_example() -> None:
    for seed in SEEDS:
        one, two = examples.make(Random(seed)), examples.make(Random(seed))
        assert one.turns == two.turns
        assert [picture.image.tobytes() for picture in one.pictures] == [picture.image.tobytes() for picture in two.pictures]


def test_every_colour_shape_and_count_occurs() -> None:
    scenes = [make_scene(Random(seed)) for seed in range(400)]
    assert {thing.colour for scene in scenes for thing in scene.things} == set(COLOURS)
    assert {thing.shape for scene in scenes for thing in scene.things} == set(SHAPES)
    assert {len(scene.things) for scene in scenes} == {1, 2, 3, 4}
    assert len({(scene.width, scene.height) for scene in scenes}) > 10


def test_a_thing_fills_its_box_with_its_colour() -> None:
    """The truth of a box is what was drawn: rows and columns of the thing's own pixels."""
    for seed in SEEDS:
        scene = make_scene(Random(seed))
        pixels, numbers = np.asarray(draw_scene(scene)), np.asarray(map_scene(scene))
        for number, thing in enumerate(scene.things, start=1):
            rows, columns = np.nonzero(numbers == number)
            found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert np.abs(np.array(found) - thing.box).max() <= 1, (seed, thing)
            assert (pixels[numbers == number] == thing.rgb).all()


def test_things_keep_apart_and_stand_from_left_to_right() -> None:
    for seed in range(200):
        scene = make_scene(Random(seed))
        assert [thing.centre[0] for thing in scene.things] == sorted(thing.centre[0] for thing in scene.things)
        assert len({thing.name for thing in scene.things}) == len(scene.things)
        for place, one in enumerate(scene.things):
            assert one.box[0] >= 0 and one.box[2] <= scene.width and one.box[1] >= 0 and one.box[3] <= scene.height
            assert all(overlap(list(one.box), list(other.box)) == 0 for other in scene.things[place + 1 :])


def test_signs_are_written_in_their_boxes() -> None:
    for seed in SEEDS:
        sign = make_sign(Random(seed))
        pixels, letters = np.asarray(draw_sign(sign)), np.asarray(map_sign(sign))
        ink = (pixels == sign.ink).all(-1)
        for line in sign.lines:
            x1, y1, x2, y2 = line.box
            assert ink[y1:y2, x1:x2].any(), (seed, line)
            ink[max(0, y1 - 1) : y2 + 1, max(0, x1 - 1) : x2 + 1] = False
        assert not ink.any(), (seed, "ink outside of every line")
        assert letters.max() == sum(len(line.text) for line in sign.lines)


def test_films_change_between_pairs_of_frames_only() -> None:
    for seed in SEEDS:
        film = make_film(Random(seed))
        assert 4 <= len(film.frames) <= 8 and len(film.frames) % 2 == 0
        shown = [film.hero.name in [thing.name for thing in frame.things] for frame in film.frames]
        if film.move:
            first, last = film.frames[0].things[0].centre, film.frames[-1].things[0].centre
            moved = {"left": first[0] - last[0], "right": last[0] - first[0], "up": first[1] - last[1], "down": last[1] - first[1]}
            assert max(moved, key=lambda way: moved[way]) == film.move
        else:
            assert shown == [film.start <= frame / FRAMES_PER_SECOND < film.end for frame in range(len(shown))]


def test_buttons_are_told_apart_by_colour() -> None:
    for seed in SEEDS:
        screen = make_screen(Random(seed))
        assert len({button.colour for button in screen.buttons}) == len(screen.buttons) >= 1


def test_the_true_answers_are_judged_right_and_others_wrong() -> None:
    """Every kind of question, each answer against its own truth and against another one's."""
    kinds: dict[str, list[float]] = {}
    everything = list(exam(150))
    for example in everything:
        turn = example.turns[0]
        answer = json.dumps(json.loads(turn.answer.split("\n")[1])) if turn.kind == "click" else turn.answer
        scores = judge(turn.kind, answer, turn.truth)
        overlaps = {name: score for name, score in scores.items() if "IoU" in name}
        assert all(score > 0.7 for score in overlaps.values()), "coordinates are told to the grain of 20"
        assert {score for name, score in scores.items() if name not in overlaps} <= {1.0}, (turn, scores)
        others = [other.turns[0] for other in everything if other.turns[0].kind == turn.kind and other.turns[0].truth != turn.truth]
        kinds.setdefault(turn.kind, []).extend(min(judge(turn.kind, other.answer, turn.truth).values()) for other in others[:5])
        assert max(judge(turn.kind, "", turn.truth).values()) == 0
        assert max(judge(turn.kind, "I cannot see it.", turn.truth).values()) == 0
    assert len(kinds) == 20
    for kind, wrong in kinds.items():
        assert wrong and min(wrong) < 1, kind


@pytest.mark.parametrize(
    "answer",
    [
        '```json\n[{"bbox_2d": [1, 2, 3], "label": "red circle"}]\n```',
        "```json\n[1, 2]\n```",
        '{"bbox_2d": 1}',
        "[[[",
        '[{"bbox_2d": ["a", 2, 3, 4], "label": "red circle"}]',
    ],
)
def test_malformed_boxes_are_worth_nothing(answer: str) -> None:
    assert judge("boxes", answer, [{"bbox_2d": [0, 0, 100, 100], "label": "red circle"}]) == {"box IoU": 0.0}


def test_overlap() -> None:
    assert overlap([0, 0, 10, 10], [0, 0, 10, 10]) == 1
    assert overlap([0, 0, 10, 10], [5, 0, 15, 10]) == pytest.approx(1 / 3)
    assert overlap([0, 0, 10, 10], [20, 20, 30, 30]) == 0


def test_a_multiple_choice_has_one_right_letter() -> None:
    for seed in range(100):
        random = Random(seed)
        scene = make_scene(random)
        turn = questions.choice(scene, random)
        options = dict(line.split(". ", 1) for line in turn.question.splitlines()[1:5])
        assert len(set(options.values())) == 4
        assert turn.thought.endswith(f"It is {options[turn.truth]} {turn.truth}.")
        boxed = f" It is {options[turn.truth]}: \\boxed{{{turn.truth}}}"
        if turn.answer != turn.truth:
            assert turn.answer.endswith(boxed)
            assert turn.thought.endswith(f" {turn.answer.removesuffix(boxed)} It is {options[turn.truth]} {turn.truth}."), "both say it in the same words"


def test_a_drill_asks_for_every_letter_twice() -> None:
    for seed in SEEDS:
        turn = lookups.each_letter(Random(seed))
        *options, _task = turn.question.splitlines()
        letters = dict(reversed(option.split(". ", 1)) for option in options)
        said = [pair.rsplit(" ", 1) for pair in turn.answer.removeprefix("It is ").removesuffix(".").split(", ")]
        assert sorted(word for word, _ in said) == sorted([*letters] * 2)
        assert [letter for _, letter in said] == [letters[word] for word, _ in said] == list(turn.truth)


def test_every_fact_of_a_drill_is_true_and_only_what_is_looked_up_is_learnt() -> None:
    """Each sentence against the scene, and with what the pattern leaves out of it, each against the others: no query twice."""
    kinds = set()
    for seed in range(300):
        random = Random(seed)
        scene = make_scene(random)
        turn = random.choice(lookups.EACH_OF_SCENE)(scene, random)
        kinds.add(turn.kind)
        names = [thing.name for thing in scene.things]
        facts = re.findall(r"Is there[^?]+\? \w+\.|[^.?]+\.", turn.answer)
        assert " ".join(fact.strip() for fact in facts) == turn.answer
        queries = [re.sub(turn.learnt, "", fact).strip() for fact in facts]
        assert len(set(queries)) == len(facts) >= 1
        for fact, query in zip((fact.strip() for fact in facts), queries, strict=True):
            assert query != fact, "something of it is learnt"
            if turn.kind == "qualities":
                words = [word for word in re.findall(r"\w+", fact) if word in (*COLOURS, *SHAPES)]
                assert " ".join(sorted(words, key=lambda word: word in SHAPES)) in names
                assert len(re.findall(turn.learnt, fact)) == 1
            elif turn.kind == "counts":
                wanted = [word for word in (*COLOURS, *SHAPES) if re.search(rf"\b{word}", fact)]
                assert fact.endswith(f" is {sum(all(word in name for word in wanted) for name in names)}.")
            elif turn.kind == "names":
                (name,) = (" ".join(pair) for pair in PAIR.findall(fact))
                assert fact.endswith("Yes." if name in names else "No.")
            else:
                (name,) = (" ".join(pair) for pair in PAIR.findall(fact))
                assert fact.endswith(f" at the {scene.place(scene.things[names.index(name)])}.")
    assert kinds == {"qualities", "counts", "names", "places"}


def test_a_drill_of_several_images_names_the_first_that_shows_a_thing() -> None:
    for seed in SEEDS:
        random = Random(seed)
        scenes = [make_scene(random, 2, (96, 96)) for _ in range(3)]
        found = re.findall(r"The (\w+ \w+) is in image (\d)\.", lookups.each_image(scenes, random).answer)
        assert {name for name, _ in found} == {thing.name for scene in scenes for thing in scene.things}
        for name, number in found:
            assert [name in [thing.name for thing in scene.things] for scene in scenes].index(True) + 1 == int(number)


def test_what_only_shows_teaches_nothing_to_say() -> None:
    assert {turn.learnt for seed in SEEDS for turn in examples.make_to_look_at(Random(seed)).turns} == {examples.NOTHING}
    assert not re.search(examples.NOTHING, "anything")


def test_what_is_asked_of_a_scene_in_words_follows_from_them() -> None:
    kinds = set()
    for seed in range(200):
        for turn in examples.told_example(Random(seed), examples.MOST_TURNS).turns:
            shown, asked = turn.question.split(". ", 1)
            names, kind = [" ".join(pair) for pair in PAIR.findall(shown)], turn.kind.removeprefix("told ")
            kinds.add(kind)
            assert not asked.startswith("Where"), "words do not tell it"
            if kind == "count":
                wanted = [word for word in (*COLOURS, *SHAPES) if word in asked]
                assert turn.truth == sum(all(word in name for word in wanted) for name in names)
            elif kind == "exists":
                assert turn.truth == any(f" {name} in" in asked for name in names)
            elif kind == "colour":
                assert f"{turn.truth} {asked.removesuffix('?').split()[-1]}" in names
            elif kind == "shape":
                assert f"{asked.split()[4]} {turn.truth}" in names
    assert kinds == {"count", "exists", "colour", "shape", "choice", "choice of letter", "counts", "names", "qualities"}


def test_about_one_half_of_the_answers_come_after_a_thought() -> None:
    thinking = [examples.make(Random(seed)).thinks for seed in range(300)]
    assert 100 < sum(thinking) < 200
    assert replace(examples.make(Random(1)), thinks=True).thinks
