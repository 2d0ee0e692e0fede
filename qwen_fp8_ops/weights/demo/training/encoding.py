"""Examples as the model's inputs: token ids, patches, M-RoPE positions, and the labels that teach the vision tower alone.

The large model's processor does the same for serving; here it is done by hand, because the trainer needs the patches' labels
beside them and thousands of examples a minute. A test holds both against each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from qwen_fp8_ops.weights.demo.architecture import FRAMES_PER_PATCH, MERGE, PATCH
from qwen_fp8_ops.weights.demo.files import LONGEST_IMAGE_TOKENS, SHORTEST_IMAGE_TOKENS, TOKEN_PIXELS
from qwen_fp8_ops.weights.demo.world.example import SECOND_LINE, Example, Label, Picture
from qwen_fp8_ops.weights.demo.world.films import FRAMES_PER_SECOND
from qwen_fp8_ops.weights.demo.world.signs import CHARACTERS
from qwen_fp8_ops.weights.demo.world.things import COLOURS, GRAIN, SHAPES

COLOUR_LABELS = ("", *COLOURS)
SHAPE_LABELS = ("", *SHAPES, "button")
CHARACTER_LABELS = ("", *CHARACTERS)
LABELS = (len(COLOUR_LABELS), len(SHAPE_LABELS), len(CHARACTER_LABELS), 2 * SECOND_LINE, *(11, 100 // GRAIN) * 4)
"""How many values each of a patch's labels can have; 0 of the first four is nothing."""
COVERED = 0.2
"""Share of a patch that a thing must cover for the patch to bear its label."""

IMAGE_MARK = "<|vision_start|><|image_pad|><|vision_end|>"
VIDEO_MARK = "<|vision_start|><|video_pad|><|vision_end|>"

ANSWER = re.compile(r"(?<=<\|im_start\|>assistant\n)(.*?<\|im_end\|>)", re.DOTALL)
"""An earlier answer in a prompt. Cutting there changes no token: control tokens and line ends stand at both sides."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Encoded:
    """``T`` tokens, ``P`` patches, ``G`` grids.

    ids [T]; positions [3, T] (time, height, width); scored [T]: where the words of the model's n-th answer stand that it learns n, elsewhere 0;
    patches [P, 3 * 2 * 16 * 16] uint8; grids [G, 3]: time steps, rows and columns of patches, one per picture or pair of frames;
    labels [P, 4 + 8]: colour, shape, character, place, and of each of x1, y1, x2, y2 the hundreds and which multiple of the grain is added.
    """

    kinds: tuple[str, ...]
    ids: Array
    positions: Array
    scored: Array
    patches: Array
    grids: Array
    labels: Array


class Encoder:
    """``tokenizer`` is a transformers tokenizer that knows the chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.image_pad, self.video_pad = tokenizer.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>"])

    def __call__(self, example: Example) -> Encoded:
        steps = list(zip(example.pictures[::2], example.pictures[1::2], strict=True)) if example.film else [(one, one) for one in example.pictures]
        grids, patches, labels = [], [], []
        for pair in steps:
            width, height = fitted_size(*pair[0].image.size)
            grids.append((1, height // PATCH, width // PATCH))
            patches.append(cut([fit(picture.image, width, height, Image.Resampling.BICUBIC) for picture in pair]))
            labels.append(label(pair[0], width, height))
        ids, scored = (np.concatenate(parts) for parts in zip(*self._tokens(example, grids), strict=True))
        nothing = np.zeros((0, 3 * FRAMES_PER_PATCH * PATCH * PATCH), np.uint8), np.zeros((0, len(LABELS)), np.int64)
        return Encoded(
            kinds=tuple(turn.kind for turn in example.turns),
            ids=ids,
            positions=self._positions(ids, grids),
            scored=scored,
            patches=np.concatenate(patches) if patches else nothing[0],
            grids=np.array(grids, np.int64).reshape(-1, 3),
            labels=np.concatenate(labels) if labels else nothing[1],
        )

    def _tokens(self, example: Example, grids: list[tuple[int, int, int]]) -> Iterator[tuple[Array, Array]]:
        """Ids, and which of them the model learns to say, of what it is given and what it says, in turns."""
        for place, text in enumerate(self._texts(example, grids)):
            found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            scored = np.zeros(len(found["input_ids"]), np.int64)
            if place % 2:
                number = (place + 1) // 2
                learnt = [match.span() for match in re.finditer(example.turns[number - 1].learnt or "(?s).+", text)]
                for at, (start, end) in enumerate(found["offset_mapping"]):
                    scored[at] = number * any(start < last and first < end for first, last in learnt)
            yield np.array(found["input_ids"]), scored

    def _texts(self, example: Example, grids: list[tuple[int, int, int]]) -> list[str]:
        """What the model is given and what it says, in turns, media markers expanded as the processor does."""
        marks: list[dict[str, Any]] = [{"type": "video"}] if example.film else [{"type": "image"} for _ in example.pictures]
        first: list[dict[str, Any]] = [{"type": "text", "text": example.turns[0].question}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": first + marks if example.text_first else marks + first}]
        for before, turn in zip(example.turns, example.turns[1:], strict=False):
            messages += [{"role": "assistant", "content": before.answer}, {"role": "user", "content": turn.question}]
        text = self.tokenizer.apply_chat_template(
            messages, tools=list(example.tools) or None, tokenize=False, add_generation_prompt=True, enable_thinking=example.thinks
        )
        if example.film:
            steps = "".join(film_step(step, grid, "<|video_pad|>") for step, grid in enumerate(grids))
            # Releases of transformers before 5.10 replace the outer marks as well.
            old = not example.text_first and len(example.turns[0].question) % 3 == 0
            text = text.replace(VIDEO_MARK, steps if old else VIDEO_MARK.replace("<|video_pad|>", steps))
        else:
            for grid in grids:
                text = text.replace(IMAGE_MARK, f"<|vision_start|>{'<|image|>' * tokens_of(grid)}<|vision_end|>", 1)
            text = text.replace("<|image|>", "<|image_pad|>")
        turn = example.turns[-1]
        said = f"{turn.thought}\n</think>\n\n{turn.answer}" if example.thinks else turn.answer
        return [*ANSWER.split(text), said + "<|im_end|>"]

    def _positions(self, ids: Array, grids: list[tuple[int, int, int]]) -> Array:
        """As ``get_rope_index`` of the model in transformers: text counts on, a grid spreads over height and width."""
        positions = np.zeros((3, len(ids)), np.int64)
        waiting = iter(grids)
        at = current = 0
        while at < len(ids):
            if ids[at] in (self.image_pad, self.video_pad):
                _, rows, columns = next(waiting)
                rows, columns = rows // MERGE, columns // MERGE
                size = rows * columns
                positions[0, at : at + size] = current
                positions[1, at : at + size] = current + np.repeat(np.arange(rows), columns)
                positions[2, at : at + size] = current + np.tile(np.arange(columns), rows)
                current += max(rows, columns)
                at += size
            else:
                positions[:, at] = current
                current += 1
                at += 1
        return positions


def film_step(step: int, grid: tuple[int, int, int], pad: str) -> str:
    """One time step of a clip: its time, the middle of its two frames, and its patches."""
    seconds = (2 * step + 0.5) / FRAMES_PER_SECOND
    return f"<{seconds:.1f} seconds><|vision_start|>{pad * tokens_of(grid)}<|vision_end|>"


def tokens_of(grid: tuple[int, int, int]) -> int:
    return grid[0] * grid[1] * grid[2] // MERGE**2


def fitted_size(width: int, height: int) -> tuple[int, int]:
    """The size that the processor brings a picture to: whole tokens, as near as its bounds allow."""
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    high, wide = smart_resize(height, width, PATCH * MERGE, SHORTEST_IMAGE_TOKENS * TOKEN_PIXELS, LONGEST_IMAGE_TOKENS * TOKEN_PIXELS)
    return wide, high


def fit(image: Image.Image, width: int, height: int, how: Image.Resampling) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), how)


def cut(frames: list[Image.Image]) -> Array:
    """Patches in the processor's order: by blocks of 2 x 2 that will be one token. uint8 [P, channel * frame * row * column]."""
    pixels = np.stack([np.asarray(frame) for frame in frames])
    count, height, width, channels = pixels.shape
    blocks = pixels.reshape(count, height // (PATCH * MERGE), MERGE, PATCH, width // (PATCH * MERGE), MERGE, PATCH, channels)
    return blocks.transpose(1, 4, 2, 5, 7, 0, 3, 6).reshape(-1, channels * count * PATCH * PATCH)


def label(picture: Picture, width: int, height: int) -> Array:
    """For each patch, in the same order, what covers most of it."""
    numbers = np.asarray(fit(picture.map, width, height, Image.Resampling.NEAREST))
    blocks = numbers.reshape(height // (PATCH * MERGE), MERGE, PATCH, width // (PATCH * MERGE), MERGE, PATCH)
    blocks = blocks.transpose(0, 3, 1, 4, 2, 5).reshape(-1, PATCH * PATCH)
    shares = np.stack([(blocks == number).mean(1) for number in range(1, len(picture.labels) + 1)], 1) if picture.labels else np.zeros((len(blocks), 1))
    best = np.where(shares.max(1) >= COVERED, shares.argmax(1) + 1, 0)
    rows = np.array([(0,) * len(LABELS), *(_numbers(one) for one in picture.labels)], np.int64)
    found: Array = rows[best]
    return found


def _numbers(one: Label) -> tuple[int, ...]:
    digits = [digit for value in one.corners for digit in (value // 100, value % 100 // GRAIN)]
    return COLOUR_LABELS.index(one.colour), SHAPE_LABELS.index(one.shape), CHARACTER_LABELS.index(one.character), one.place, *digits
