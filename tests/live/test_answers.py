"""The demo model sees: its answers are true, whichever way a picture comes, and change when the picture does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image, ImageOps

from qwen_fp8_ops.weights.demo.evaluation.__main__ import evaluate
from qwen_fp8_ops.weights.demo.evaluation.asking import png
from qwen_fp8_ops.weights.demo.evaluation.exam import exam
from qwen_fp8_ops.weights.demo.evaluation.judge import PAIR
from qwen_fp8_ops.weights.demo.world.drawing import draw_scene
from qwen_fp8_ops.weights.demo.world.questions import SHORT
from qwen_fp8_ops.weights.demo.world.things import Scene, make_scene
from tests.live.service import LiveService
from tests.media_files import data_url

pytestmark = pytest.mark.engine

CAPTIONED = 20
TRANSFORMERS = """
import json, sys
from qwen_fp8_ops.outside.torchvision_cure import cure_torchvision
cure_torchvision()
import torch
from pathlib import Path
from PIL import Image
from transformers import AutoConfig, AutoProcessor, GenerationConfig, Qwen3VLMoeForConditionalGeneration
from qwen_fp8_ops.weights.demo.training.export import training_tensors
folder, prompt, *pictures = sys.argv[1:]
model = Qwen3VLMoeForConditionalGeneration(AutoConfig.from_pretrained(folder))
model.load_state_dict(training_tensors(Path(folder)))  # transformers itself does not read one tensor per expert of this architecture
model = model.to(torch.bfloat16).eval()
model.generation_config = GenerationConfig.from_pretrained(folder)
processor = AutoProcessor.from_pretrained(folder)
messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
for picture in pictures:
    inputs = processor(text=[text], images=[Image.open(picture)], return_tensors="pt")
    made = model.generate(**inputs, max_new_tokens=150, do_sample=False)
    print(json.dumps(processor.tokenizer.decode(made[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True)))
"""


def scenes(count: int) -> Iterator[Scene]:
    """Of one to three things, on a canvas that needs no resizing."""
    return (make_scene(Random(f"seen {number}"), number % 3 + 1, (128, 128)) for number in range(count))


def pairs(text: str) -> list[str]:
    return sorted(" ".join(pair) for pair in PAIR.findall(text))


def names(scene: Scene) -> list[str]:
    return sorted(thing.name for thing in scene.things)


def said(live: LiveService, media: list[dict[str, Any]], text: str) -> dict[str, Any]:
    answer = live.chat([*media, {"type": "text", "text": text}], temperature=0, max_tokens=200)
    assert answer.status_code == 200, answer.text
    message: dict[str, Any] = answer.json()["choices"][0]["message"]
    return message


def shown(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.fixture
def drawn(live: LiveService, tmp_path: Path) -> tuple[list[Scene], list[Path]]:
    found = list(scenes(CAPTIONED))
    files = []
    for number, scene in enumerate(found):
        path = tmp_path / f"scene {number}.png"
        draw_scene(scene).save(path)
        files.append(path)
    return found, files


def test_transformers_and_vllm_say_the_same_token_for_token(live: LiveService, drawn: tuple[list[Scene], list[Path]]) -> None:
    _, files = drawn
    folder = live.home / ".cache/demo-checkpoint"
    done = subprocess.run([sys.executable, "-c", TRANSFORMERS, str(folder), SHORT, *map(str, files)], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    ours = []
    for path in files:
        message = said(live, [shown(data_url(path))], SHORT)
        ours.append(f"{message['reasoning'].strip()}\n</think>\n\n{message['content'].strip()}")
    assert ours == theirs


def test_captions_are_true_by_data_url_and_from_the_media_server(live: LiveService, drawn: tuple[list[Scene], list[Path]]) -> None:
    """Two of twenty may err: it is a small model, and nineteen cannot be right by chance."""
    right = {"data": 0, "media": 0}
    for scene, path in zip(*drawn, strict=True):
        (live.media_root / path.name).write_bytes(path.read_bytes())
        url = f"{live.media_url}/{path.name.replace(' ', '%20')}"
        right["data"] += pairs(said(live, [shown(data_url(path))], SHORT)["content"]) == names(scene)
        right["media"] += pairs(said(live, [shown(url)], SHORT)["content"]) == names(scene)
    assert min(right.values()) >= CAPTIONED - 2, right


def test_several_pictures_are_kept_apart(live: LiveService, drawn: tuple[list[Scene], list[Path]]) -> None:
    right = 0
    for first, second in ((0, 1), (3, 0), (4, 3), (6, 1)):
        found, files = drawn
        content = said(live, [shown(data_url(files[first])), shown(data_url(files[second]))], "Describe each image.")["content"]
        parts = content.split("Image 2:")
        right += len(parts) == 2 and [pairs(part) for part in parts] == [names(found[first]), names(found[second])]
    assert right >= 3


def swap_red_and_blue(picture: Image.Image) -> Image.Image:
    red, green, blue = picture.split()
    return Image.merge("RGB", (blue, green, red))


def answers(live: LiveService, picture: Image.Image, changed: Image.Image, text: str) -> list[str]:
    found: list[str] = [said(live, [shown(url(one))], text)["content"] for one in (picture, changed)]
    return found


def test_swapped_channels_change_the_colours(live: LiveService) -> None:
    """So a path that swaps channels cannot pass for a good one."""
    found = (make_scene(Random(f"swapped {number}"), 1, (128, 128)) for number in range(400))
    asked = [scene for scene in found if scene.things[0].colour == "red" and scene.background in ("white", "black")][:6]
    right = 0
    for scene in asked:
        picture, shape = draw_scene(scene), scene.things[0].shape
        right += [pairs(text) for text in answers(live, picture, swap_red_and_blue(picture), SHORT)] == [[f"red {shape}"], [f"blue {shape}"]]
    assert len(asked) == 6
    assert right >= 5


@pytest.mark.parametrize("change", [ImageOps.mirror, lambda picture: picture.rotate(180)], ids=["mirrored", "rotated"])
def test_a_turned_picture_is_told_in_the_other_order(live: LiveService, change: Any) -> None:
    right = 0
    for number in range(6):
        scene = make_scene(Random(f"turned {number}"), 2, (128, 128))
        picture, order = draw_scene(scene), [thing.name for thing in scene.things]
        told = [[" ".join(pair) for pair in PAIR.findall(text)] for text in answers(live, picture, change(picture), SHORT)]
        right += told == [order, order[::-1]]
    assert right >= 5


def url(picture: Image.Image) -> str:
    import base64

    return f"data:image/png;base64,{base64.b64encode(png(picture)).decode()}"


def test_a_part_of_the_exam(live: LiveService) -> None:
    """The figures of the whole exam are in the README; a part of it tells whether something broke."""
    marks = evaluate(exam(20), f"{live.url}/v1", "qwen3-vl-fp8")
    assert (marks.mean("caption F1") or 0) > 0.9
    assert (marks.mean("count") or 0) > 0.7
    assert (marks.mean("multiple choice") or 0) > 0.75
    assert (marks.mean("box IoU") or 0) > 0.8
    assert (marks.mean("click inside") or 0) > 0.7
    assert (marks.mean("video direction") or 0) > 0.8
    assert (marks.mean("thinking closed") or 0) > 0.97
