"""A journal as a reader sees it: which outcome is the latest of each item, found by its id.

A journal is JSON Lines: the recipe first, then one outcome a line, appended as they come. What a kill or a full disk left half
written at its end does not count, nor does a line that is damaged. Memory holds one number for each item, whatever the answers' length.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from qwen_fp8_ops.client.batch.item import Outcome
from qwen_fp8_ops.errors import OpsError

SCHEMA = 1
USUAL_LINE_BYTES = 4096
PIECE_BYTES = 1 << 20


class Records:
    """The outcomes of one journal. A context manager.

    ``head`` is its first line, None when there is none yet; ``damaged`` counts lines that are no outcome; ``end`` is where its last
    whole line ends.

    Raises:
        OpsError: it cannot be read (code ``unreadable-file``), or its first line is not a journal's (code ``damaged-file``).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets: dict[int, int] = {}
        self.head: dict[str, Any] | None = None
        self.damaged = 0
        self.end = 0
        try:
            self._descriptor = self._open()
        except OSError as error:
            raise OpsError(f"{path} cannot be read: {error.strerror}", code="unreadable-file", fix="Check its path and rights: ls -l FILE") from error
        with ExitStack() as undo:
            undo.callback(os.close, self._descriptor)
            self._index()
            undo.pop_all()

    def _open(self) -> int:
        return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    def _index(self) -> None:
        for offset, line in self._lines():
            if self.head is None:
                self.head = self._read_head(line)
            elif (outcome := read_outcome(line)) is not None:
                self._offsets[hash(outcome.id)] = offset
            else:
                self.damaged += 1
            self.end = offset + len(line) + 1

    def _read_head(self, line: bytes) -> dict[str, Any]:
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if isinstance(value, dict) and value.get("schema") == SCHEMA and isinstance(value.get("recipe"), dict):
            return value
        raise OpsError(f"{self.path} is not a journal that this version reads", code="damaged-file", fix="--overwrite does everything again.")

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Every whole line with the place where it begins."""
        place, offset, rest = 0, 0, b""
        while piece := os.pread(self._descriptor, PIECE_BYTES, place):
            place += len(piece)
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield offset, line
                offset += len(line) + 1

    def find(self, id: str) -> Outcome | None:
        """The latest outcome of this item."""
        offset = self._offsets.get(hash(id))
        outcome = read_outcome(self._line_at(offset)) if offset is not None else None
        # Two ids with one 64-bit hash: the item is asked again, which costs one request in many billions.
        return outcome if outcome is not None and outcome.id == id else None

    def _line_at(self, offset: int) -> bytes:
        found, size = b"", USUAL_LINE_BYTES
        while b"\n" not in found:
            piece = os.pread(self._descriptor, size, offset + len(found))
            if not piece:
                break
            found, size = found + piece, 2 * size
        return found.partition(b"\n")[0]

    def __iter__(self) -> Iterator[Outcome]:
        """The latest outcome of every item, in the order in which they came."""
        for offset, line in self._lines():
            outcome = read_outcome(line) if offset else None
            if outcome is not None and self._offsets.get(hash(outcome.id)) == offset:
                yield outcome

    def __len__(self) -> int:
        return len(self._offsets)

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def read_outcome(line: bytes) -> Outcome | None:
    try:
        return Outcome.from_json(json.loads(line))
    except (ValueError, RecursionError):
        return None
