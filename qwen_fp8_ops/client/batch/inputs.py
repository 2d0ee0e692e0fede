"""Which of the items a run does: all of them, the first few, or one share of many."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qwen_fp8_ops.client.batch.item import Inputs, Item

SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True)
class Shard:
    """The ``number``-th of ``of`` shares, counted from 1.

    An item belongs to a share by its id alone, so that a file that is added later moves no other into another share.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """
        Raises:
            ValueError: it is not i/n with 1 <= i <= n.
        """
        found = SHARD.fullmatch(text.strip())
        shard = cls(int(found[1]), int(found[2])) if found else None
        if shard is None or not 1 <= shard.number <= shard.of:
            raise ValueError("not a share such as 2/4, from 1/4 to 4/4")
        return shard

    def holds(self, id: str) -> bool:
        # A checksum such as CRC-32 would not do: it is linear, and numbered names fall into few of two, four or eight shares.
        digest = hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest) % self.of == self.number - 1


@dataclass(frozen=True)
class Listed:
    """Items that are in memory anyway."""

    items: Sequence[Item]

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def count(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Selection:
    """The first ``limit`` of all inputs, and of these the ones of one share."""

    inputs: Inputs
    shard: Shard | None = None
    limit: int | None = None

    def __iter__(self) -> Iterator[Item]:
        shard = self.shard
        first = itertools.islice(self.inputs, self.limit)
        return (item for item in first if shard.holds(item.id)) if shard else iter(first)

    def count(self) -> int:
        if self.shard:
            return sum(1 for _ in self)
        return self.inputs.count() if self.limit is None else min(self.limit, self.inputs.count())
