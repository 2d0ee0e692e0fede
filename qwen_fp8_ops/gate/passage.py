"""One request on its way into the engine: known by its body, on record while the engine has it, refused when it is poison."""

from __future__ import annotations

import hashlib
import re
import time

from qwen_fp8_ops.gate import refusal
from qwen_fp8_ops.gate.in_flight import InFlight, Running
from qwen_fp8_ops.gate.poison import PoisonList
from qwen_fp8_ops.gate.refusal import Refusal

MEDIA = re.compile(rb'"(?:image|video|audio)_(?:url|embeds)"\s*:')
LONGEST_MEDIA = 32
"""Of a match; so much of each piece is looked at again with the next one."""


class Passage:
    """``feed`` takes the body as it arrives and answers, once it is whole, whether it may pass; ``leave`` when all is over."""

    __slots__ = ("_bytes", "_end", "_hash", "_id", "_in_flight", "_line", "_media", "_poison", "_running")

    def __init__(self, poison: PoisonList, in_flight: InFlight, id: str) -> None:
        self._poison = poison
        self._in_flight = in_flight
        self._id = id
        self._hash = hashlib.sha256()
        self._bytes = 0
        self._media = 0
        self._end = b""
        self._line: int | None = None
        self._running: Running | None = None

    def feed(self, piece: bytes, *, whole: bool) -> Refusal | None:
        self._hash.update(piece)
        self._bytes += len(piece)
        self._count_media(piece)
        if not whole:
            return None
        sha256 = self._hash.hexdigest()
        record = self._poison.find(sha256, time.monotonic())
        if record is not None:
            return refusal.poison(record.id, record.first, record.second, record.until)
        self._running = Running(sha256, self._bytes, self._media, time.time(), 0.0, self._id)
        self._line = self._in_flight.enter(self._running)
        return None

    def _count_media(self, piece: bytes) -> None:
        text = self._end + piece
        last = 0
        for found in MEDIA.finditer(text):
            self._media += 1
            last = found.end()
        self._end = text[max(last, len(text) - LONGEST_MEDIA) :]

    def leave(self, *, well: bool) -> None:
        """``well``: it had its answer, whole and without an error of the engine's."""
        if self._line is None or self._running is None:
            return
        if well:
            self._in_flight.leave(self._line)
        else:
            self._in_flight.fail(self._line, self._running)
