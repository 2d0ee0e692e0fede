"""The requests that the engine has just now, on record where they outlive this process: whoever looks after a crash finds them.

One file for each process of the gate, of lines of one length, one for each request that runs; a free line is blank. A request that
failed stays for a while: when the engine's core dies, the API server tells that to every client before it ends itself. Nothing is
synced to the disk: what was written is the kernel's when the process dies, and of a machine that dies nobody asks which request
it was. The cost is one write of a line when a request enters and one when it leaves.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LINE_BYTES = 256
MOST_LINES = 4096
"""More than any engine runs at a time; requests beyond that pass unrecorded."""
KEPT_SECONDS = 600.0
"""A failed request's line is not used again before that, unless lines are short."""
BLANK = b" " * (LINE_BYTES - 1) + b"\n"

logger = logging.getLogger("qwen_fp8_ops.gate")


class Running(NamedTuple):
    """A request by what its body is: hash, length, how many pictures and films it names. ``since`` and ``ended`` (0
    while it runs) are wall seconds.
    """

    sha256: str
    body_bytes: int
    media: int
    since: float
    ended: float
    id: str

    def line(self) -> bytes:
        text = f"{self.sha256} {self.body_bytes} {self.media} {self.since:.3f} {self.ended:.3f} {self.id}".encode()
        return text[: LINE_BYTES - 1].ljust(LINE_BYTES - 1) + b"\n"

    @classmethod
    def read(cls, line: str) -> Running | None:
        words = line.split()
        try:
            return cls(words[0], int(words[1]), int(words[2]), float(words[3]), float(words[4]), words[5])
        except (IndexError, ValueError):
            return None


class InFlight:
    """Never raises: what cannot be recorded runs all the same."""

    def __init__(self) -> None:
        self.folder = ""
        self._descriptor = -1
        self._used = 0
        self._free: list[int] = []
        self._failed: deque[tuple[int, float]] = deque()
        self._failing = False

    def enter(self, running: Running) -> int | None:
        """The line it was given; None when it could not be recorded."""
        try:
            if self._descriptor < 0:
                # At the first request and not before: a server that forks its workers does so in between.
                self._descriptor = self._open()
            line = self._free_line()
            if line is None:
                return None
            os.pwrite(self._descriptor, running.line(), line * LINE_BYTES)
        except OSError as error:
            if not self._failing:
                self._failing = True
                logger.warning("Running requests are not recorded in %s: %s", self.folder, error.strerror)
            return None
        return line

    def leave(self, line: int) -> None:
        if self._write(line, BLANK):
            self._free.append(line)

    def fail(self, line: int, running: Running) -> None:
        """It is over, and not well."""
        if self._write(line, running._replace(ended=time.time()).line()):
            self._failed.append((line, time.monotonic()))

    def _write(self, line: int, text: bytes) -> bool:
        try:
            os.pwrite(self._descriptor, text, line * LINE_BYTES)
        except OSError:
            return False  # the line is lost for other requests, and at a crash this one counts as running
        return True

    def _free_line(self) -> int | None:
        if self._free:
            return self._free.pop()
        full = self._used >= MOST_LINES
        if self._failed and (full or time.monotonic() - self._failed[0][1] > KEPT_SECONDS):
            return self._failed.popleft()[0]
        if full:
            return None
        self._used += 1
        return self._used - 1

    def _open(self) -> int:
        os.makedirs(self.folder, exist_ok=True)
        path = os.path.join(self.folder, f"{os.getsid(0)}-{os.getpid()}")
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)


def recorded(folder: Path, session: int, *, since: float) -> list[Running]:
    """What the gate's processes of a session had when they ended or have now, and what failed after ``since`` (wall seconds)."""
    found = []
    for file in files_of(folder, session):
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found += [running for line in text.splitlines() if (running := Running.read(line)) and not 0 < running.ended < since]
    return found


def files_of(folder: Path, session: int) -> Iterator[Path]:
    return folder.glob(f"{session}-*")
