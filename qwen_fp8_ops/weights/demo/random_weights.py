"""Weights for a model that knows nothing, yet answers in an orderly way.

Pure noise would stutter one token until max_tokens, never close its thinking, and emit image markers. So one thing is laid into
the noise by hand, *the walk*: the tokens an answer is made of are dealt into steps, and each token's embedding names the step
that comes next, in a channel of its own that no layer writes to. The output layer raises the tokens of the named step above all
others. Every answer is then ``WORDS`` words of thinking, ``</think>``, ``WORDS`` words of answer, and its end, at any usual
temperature; *which* words of a step are chosen is up to the noise, and so to the prompt and its pictures.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from qwen_fp8_ops.weights.demo.architecture import HIDDEN, tensors
from qwen_fp8_ops.weights.demo.corpus import CORPUS

if TYPE_CHECKING:
    import torch

SEED = 235
WORDS = 20
CHANNEL = 4.0
"""What marks the next step in an embedding whose other values have a deviation of 1."""
RAISE = 12.0
"""Logits are about CHANNEL * RAISE higher for the tokens of the next step; among themselves they differ by a few."""
SPREAD = 1.5
"""Standard deviation of the logits that the noise makes."""

RESIDUAL_WRITERS = re.compile(r"(o_proj|down_proj|merger.*\.linear_fc2)\.(weight|bias)$")
"""What adds to the text model's hidden state: attention, experts, and the vision tower's mergers."""


def walk(vocabulary: Mapping[str, int]) -> list[list[int]]:
    """Token ids by step. Rarer words come later, so that a prompt that breaks off seldom names the last step."""
    whole = {"Ġ" + word for word in re.findall(r" ([A-Za-z]{2,})\b", CORPUS)}  # not the beginnings of words that BPE also keeps
    words = sorted(number for text, number in vocabulary.items() if text in whole)
    size = len(words) // (2 * WORDS)
    groups = [words[step * size : (step + 1) * size] for step in range(2 * WORDS)]
    return [*groups[::2], [vocabulary["</think>"]], [vocabulary["ĊĊ"]], *groups[1::2], [vocabulary["<|im_end|>"]]]


def next_steps(vocabulary: Mapping[str, int], steps: list[list[int]]) -> list[int]:
    """For each token the step that follows it; a token outside the walk is followed by an answer's first word."""
    answer = WORDS + 2
    following = [answer] * len(vocabulary)
    for step, tokens in enumerate(steps[:-1]):
        for token in tokens:
            following[token] = step + 1
    # The prompt's end, "<think>\n", begins the thinking.
    following[vocabulary["<think>"]] = following[vocabulary["Ċ"]] = 0
    return following


def make(vocabulary: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """Every tensor of the checkpoint in bfloat16; the same values each time, on any machine."""
    import torch

    generator = torch.Generator().manual_seed(SEED)
    steps = walk(vocabulary)
    weights = {}
    for name, shape in sorted(tensors()):
        deviation = _deviation(name, shape)
        if deviation is None:
            value = torch.full(shape, 0.0 if name.endswith("bias") else 1.0)
        else:
            # Uniform, not normal: torch draws normal numbers in another order on CPUs with other vector units.
            value = (torch.rand(shape, generator=generator) * 2 - 1) * (deviation * math.sqrt(3))
        if RESIDUAL_WRITERS.search(name):
            value[: len(steps)] = 0
        weights[name] = value

    embedding, output = weights["model.language_model.embed_tokens.weight"], weights["lm_head.weight"]
    embedding[:, : len(steps)] = 0
    output[:, : len(steps)] = 0
    for token, step in enumerate(next_steps(vocabulary, steps)):
        embedding[token, step] = CHANNEL
    for step, tokens in enumerate(steps):
        output[tokens, step] = RAISE
    return {name: value.to(torch.bfloat16) for name, value in weights.items()}


def _deviation(name: str, shape: tuple[int, ...]) -> float | None:
    """Standard deviation that keeps signals at their size; None for a norm or a bias, which does nothing."""
    if len(shape) == 1:
        return None
    if name.endswith("embed_tokens.weight"):
        return 1.0
    if name == "lm_head.weight":
        return SPREAD / math.sqrt(HIDDEN)
    if name.endswith("pos_embed.weight"):
        return 0.5
    return 1 / math.sqrt(math.prod(shape[1:]))
