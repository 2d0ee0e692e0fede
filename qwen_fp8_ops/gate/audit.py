"""One JSON line for each request: who asked what, when, and what came of it. Never a key, never a body. With LOG_FORMAT=json it has
the fields of ``outside.log_line``, so that one query reads it together with the supervisor's lines.

Lines are made and written by one daemon thread, so a slow disk is never felt by a request and a full one only costs lines, which
are counted. The file is opened for appending and reopened when something else is found at its path, so it may be rotated by
renaming.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
import threading
import time
from queue import Empty, SimpleQueue
from typing import NamedTuple

from qwen_fp8_ops.outside.clock import iso
from qwen_fp8_ops.outside.log_line import log_line

GATHER_SECONDS = 0.02
"""The thread wakes, waits so long for company, then writes all there is: under load it wakes fifty times a second, not for
each request, which would make the event loop wait for the interpreter lock every time."""

LONGEST_QUEUE = 50_000
"""When the disk hangs, later lines are dropped rather than kept in memory without end."""

TAIL_BYTES = 2048
USAGE = re.compile(rb'"usage"\s*:\s*\{')
PROMPT_TOKENS = re.compile(rb'"prompt_tokens"\s*:\s*(\d{1,18})')
COMPLETION_TOKENS = re.compile(rb'"completion_tokens"\s*:\s*(\d{1,18})')

logger = logging.getLogger("qwen_fp8_ops.gate")


class Entry(NamedTuple):
    """What is known when a request is over.

    ``time`` is wall seconds at its arrival. ``status`` is None when the client left before any answer began. ``finished`` is
    false when the answer did not reach its end: the client went away, or the app failed.
    """

    time: float
    id: str
    who: str | None
    client: str | None
    method: str
    route: str
    status: int | None
    ms: float
    bytes_in: int
    bytes_out: int
    streamed: bool
    finished: bool
    tail: bytes

    def line(self) -> bytes:
        prompt_tokens, completion_tokens = usage(self.tail)
        value = {
            **self._asdict(),
            "time": iso(self.time),
            "ms": round(self.ms, 2),
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
        }
        del value["tail"]
        return json.dumps(value).encode() + b"\n"

    def log_line(self) -> bytes:
        """The same facts by the names of ``outside.log_line``."""
        prompt_tokens, completion_tokens = usage(self.tail)
        facts = self._asdict() | {"ms": round(self.ms, 2), "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        del facts["time"], facts["id"], facts["tail"]
        return log_line(iso(self.time), self.level, "request", request_id=self.id, **facts).encode() + b"\n"

    @property
    def level(self) -> str:
        """``error`` is what the service did wrong, ``warning`` what it refused or the client did not stay for."""
        if self.status is not None and self.status >= 500:
            return "error"
        return "info" if self.finished and self.status is not None and self.status < 400 else "warning"


def usage(tail: bytes) -> tuple[int | None, int | None]:
    """Prompt and completion tokens from the last ``usage`` object in the end of an answer, streamed or not.

    The answer's own text cannot forge one: inside a JSON string a quote is written \\", so ``"usage"`` and its colon never meet.
    """
    tail = tail[-TAIL_BYTES:]
    begins = [found.end() for found in USAGE.finditer(tail)]
    if not begins:
        return None, None
    prompt = PROMPT_TOKENS.search(tail, begins[-1])
    completion = COMPLETION_TOKENS.search(tail, begins[-1])
    return (int(prompt[1]) if prompt else None), (int(completion[1]) if completion else None)


class AuditLog:
    """``record`` never blocks and never raises. ``path`` and ``as_log`` (the form of LOG_FORMAT=json) may be changed at any time;
    ``dropped`` counts lines that were lost."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.as_log = False
        self.dropped = 0
        self._queue: SimpleQueue[Entry | threading.Event] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._descriptor = -1
        self._torn = False
        self._failing = False

    def record(self, entry: Entry) -> None:
        if self._thread is None:
            # At the first entry and not before: a server that forks its workers does so in between.
            self._thread = threading.Thread(target=self._run, name="gate-audit", daemon=True)
            self._thread.start()
            atexit.register(self.flush, 1.0)
        if self._queue.qsize() >= LONGEST_QUEUE:
            self.dropped += 1
        else:
            self._queue.put(entry)

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until everything recorded so far is written; False when that took too long."""
        if self._thread is None or not self._thread.is_alive():
            return True
        done = threading.Event()
        self._queue.put(done)
        return done.wait(timeout_seconds)

    def _run(self) -> None:
        while True:
            batch = [self._queue.get()]
            if isinstance(batch[0], Entry):
                time.sleep(GATHER_SECONDS)
            try:
                while True:
                    batch.append(self._queue.get_nowait())
            except Empty:
                pass
            self._write(batch)

    def _write(self, batch: list[Entry | threading.Event]) -> None:
        as_log = self.as_log
        lines = b"".join(item.log_line() if as_log else item.line() for item in batch if isinstance(item, Entry))
        if lines:
            problem = self._append(lines)
            if problem and not self._failing:
                logger.warning("Audit lines are being lost: %s: %s", self.path, problem)
            elif self._failing and not problem:
                logger.warning("Audit lines are written again: %s", self.path)
            self._failing = bool(problem)
        for item in batch:
            if isinstance(item, threading.Event):
                item.set()

    def _append(self, lines: bytes) -> str:
        """Whole lines in one write, so that those of several processes do not mix; what went wrong, or nothing."""
        left = lines
        problem = ""
        try:
            self._reopen()
            if self._torn:
                os.write(self._descriptor, b"\n")
                self._torn = False
            left = lines[os.write(self._descriptor, lines) :]
        except OSError as error:
            problem = error.strerror or str(error)
        if left:
            # A full disk may take part of a line: the next one must begin on a fresh line.
            self._torn = self._torn or lines[: len(lines) - len(left)][-1:] not in (b"", b"\n")
            self.dropped += left.count(b"\n")
            return problem or "no room for all of it"
        return ""

    def _reopen(self) -> None:
        """Have the file that is at ``path`` now open for appending.

        Raises:
            OSError: that cannot be.
        """
        if self._descriptor >= 0:
            here = os.fstat(self._descriptor)
            try:
                there = os.stat(self.path)
            except FileNotFoundError:
                there = None
            if there is not None and os.path.samestat(here, there):
                return
            os.close(self._descriptor)
            self._descriptor = -1
        os.makedirs(os.path.dirname(self.path), exist_ok=True)  # somebody may have tidied up
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._torn = False
