"""Training batches without end, drawn and encoded in a process beside the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from qwen_fp8_ops.weights.demo.training.encoding import Encoded, Encoder
from qwen_fp8_ops.weights.demo.training.model import Batch
from qwen_fp8_ops.weights.demo.world import examples
from qwen_fp8_ops.weights.demo.world.example import Example

Maker = Callable[[Random], Example]

POOL = 8
"""Batches that are drawn together and dealt by length: little is padding, and all have about the same number of tokens."""

HELD_OUT = 1 << 40
"""Seeds from here on are never trained on."""


def encoded(encoder: Encoder, seed: int, count: int, make: Maker = examples.make) -> list[Encoded]:
    random = Random(seed)
    return [encoder(make(random)) for _ in range(count)]


def dealt(drawn: list[Encoded]) -> list[list[Encoded]]:
    """``POOL`` batches, the first of many short examples, the last of few long ones."""
    drawn.sort(key=lambda example: len(example.ids))
    total, before = sum(len(example.ids) for example in drawn), 0
    batches: list[list[Encoded]] = [[] for _ in range(POOL)]
    for example in drawn:
        batches[before * POOL // total].append(example)
        before += len(example.ids)
    return [batch for batch in batches if batch]  # one long example may fill the place of two batches


class Stream(IterableDataset[list[Encoded]]):
    """Batch number ``begin`` and the following ones; the same ones for the same seed, wherever it begins."""

    def __init__(self, encoder: Encoder, seed: int, size: int, begin: int = 0, make: Maker = examples.make) -> None:
        self.encoder, self.seed, self.size, self.begin, self.make = encoder, seed, size, begin, make

    def __iter__(self) -> Iterator[list[Encoded]]:
        pool = self.begin // POOL
        while True:
            batches = dealt(encoded(self.encoder, self.seed * 1_000_003 + pool, POOL * self.size, self.make))
            Random(pool).shuffle(batches)
            yield from batches[self.begin % POOL if pool == self.begin // POOL else 0 :]
            pool += 1


def read(stream: Stream) -> Iterator[Batch]:
    """Arrays come through the pipe and become tensors here: torch hands tensors over by a socket, and an interrupt in the middle of that is a traceback."""
    loader: Any = DataLoader(stream, batch_size=None, num_workers=1, prefetch_factor=6)
    return map(Batch, loader)
