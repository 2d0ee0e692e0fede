"""What the processes of an engine complain of in its log: each complaint whole, with who made it and whether it did any harm.

vLLM puts process, time and place before every line of a record, and the records of eight workers mix: what belongs together is told
by that head. Lines without one are what Python itself wrote.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

LONGEST = 600

HEAD = re.compile(r"\((?P<who>[A-Za-z][\w-]*)(?: pid=\d+)?\) ?(?P<place>(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?)?")
EXCEPTION = re.compile(r"(?:[a-zA-Z_][\w.]*\.)?(?:[A-Z]\w*)?(?:Error|Exception|Interrupt|Exit|Failure)(?:: .*)?")
FATAL = re.compile(
    r"Worker proc .* died unexpectedly|Failed to load model - not enough GPU memory|Watchdog caught collective operation timeout"
    r"|Fatal Python error: |terminate called after throwing|^\S+(?: \S+)?: error: "
)
SECOND_HAND = re.compile(
    r"Engine core initialization failed|WorkerProc (?:failed to start|initialization failed)|Worker failed with error|Executor failed"
    r"|EngineDeadError|EngineCore failed to start|[Cc]ancelled|CancelledError"
)

TRACEBACK = re.compile(r"Traceback \(most recent call last\)")
CHAINED = re.compile(r"During handling of the above exception|The above exception was the direct cause")
CHILD_DIES = re.compile(r"Process (\w[\w-]*):")
RANK = re.compile(r"\[rank\d+\]:")
"""How torch's own threads begin a line; only workers have a rank."""
LAST_RECORD = re.compile(r"output_handler failed")
"""A serving API server that logs this one ends; any other traceback that it logs is a request's."""
CORE_NO_HARM = re.compile(r"Unexpected error pre-processing request|Invocation of .* method failed|Unrecognized input request type")
"""The engine core logs these of a request and goes on (vllm/v1/engine/core.py)."""
NO_HARM = re.compile(r"Exception in ASGI application|exception was never retrieved|Exception ignored in|^future: <|Cancel \d+ running task")
"""Python, asyncio and uvicorn say so before a traceback of something that the server outlives."""
WAS_READY = re.compile(r"Application startup complete")
UVICORN = re.compile(r"ERROR:    (?!Exception in ASGI|Application startup failed)")
DETAIL_NOISE = re.compile(r"For further information visit|CUDA kernel errors might be|For debugging consider|Compile with `TORCH|Search for `cuda")
INPUT_VALUE = re.compile(r" \[type=\w+, input_value=.*", re.DOTALL)

WORKER, CORE, SERVER = 2, 1, 0
"""Depths of an engine's processes: the inner ones are nearer to the cause."""


@dataclass
class Complaint:
    """``depth`` tells whose. Complaints of one traceback, with what it came from, have one ``chain``. ``harmless``: of a request, and
    not of the engine.
    """

    depth: int
    text: str
    chain: int = 0
    after_ready: bool = False
    harmless: bool = False

    @property
    def second_hand(self) -> bool:
        return bool(SECOND_HAND.search(self.text))

    def add(self, detail: str) -> None:
        """One more line of it."""
        if not DETAIL_NOISE.match(detail) and len(self.text) < LONGEST:
            self.text += (" " if self.text[-1] in ".:;,!?" else ": ") + INPUT_VALUE.sub("", detail)


@dataclass(frozen=True)
class Line:
    """``head`` is the whole of process, time and place; empty where there is no time and place in it."""

    who: str
    head: str
    text: str

    @classmethod
    def of(cls, whole: str) -> Line:
        found = HEAD.match(whole)
        return cls(found["who"], found[0] if found["place"] else "", whole[found.end() :]) if found else cls("", "", whole)

    @property
    def plain(self) -> str:
        """Without what uvicorn puts before an error."""
        return UVICORN.sub("", self.text.strip())

    @property
    def complains(self) -> bool:
        return bool(EXCEPTION.fullmatch(self.plain) or FATAL.search(self.plain) or UVICORN.match(self.text))

    @property
    def goes_on(self) -> bool:
        """Can a complaint go on with it? In a record every line is part of it, elsewhere only what is set in."""
        return bool(self.text.strip()) and (bool(self.head) or self.text[0].isspace()) and not self.text.startswith('  File "')


def complaints_of(log: Sequence[str], *, was_ready: bool = False) -> list[Complaint]:
    """All of them, in the log's order.

    Args:
        was_ready: the engine served already where the log begins, which may be in the midst of a message: that one is old, and not
            what the engine died of.
    """
    reader = _Reader(was_ready, Line.of(log[0]).head if was_ready and log else "")
    for line in log:
        reader.read(Line.of(line))
    return reader.found


class _Reader:
    """``torn`` is the head of the record in whose midst the log begins."""

    def __init__(self, ready: bool, torn: str) -> None:
        self.found: list[Complaint] = []
        self._ready = ready
        self._torn = torn
        self._lines = 0
        self._open: dict[str, Complaint] = {}  # by head: those that may go on
        self._first_lines: dict[str, str] = {}  # by head: how its record began
        self._chain = 0
        self._chained = False  # the next traceback belongs to the one before
        self._dying = SERVER  # whose traceback follows, where Python itself writes it
        self._no_harm = False  # the server outlives what this traceback is of
        self._before = ""  # the line before, of those without a head

    def read(self, line: Line) -> None:
        if line.head:
            self._first_lines.setdefault(line.head, line.text)
        self._ready = self._ready or bool(WAS_READY.search(line.text))
        if TRACEBACK.match(line.plain):
            self._begin_traceback(line)
        elif CHAINED.match(line.plain):
            self._chained = True
            self._close(line)
        elif child := CHILD_DIES.fullmatch(line.plain):
            self._dying = _depth(child[1])
        elif line.complains:
            self._complain(line)
        elif line.head in self._open and line.goes_on:
            self._open[line.head].add(line.plain)
        else:
            self._close(line)
        if not line.head:
            self._before = line.plain
        self._lines += 1

    def _begin_traceback(self, line: Line) -> None:
        if not self._chained:
            torn_off = self._ready and self._lines == 0
            self._no_harm = torn_off or bool(NO_HARM.search(self._before))
            self._chain += 1
        self._chained = False
        self._close(line)

    def _complain(self, line: Line) -> None:
        depth = WORKER if RANK.match(line.plain) else _depth(line.who) if line.who else self._dying
        if not line.who:
            self._dying = SERVER
        harmless = self._harmless_to_server(line) if depth == SERVER else self._harmless_to_core(line)
        self._open[line.head] = Complaint(depth, INPUT_VALUE.sub("", line.plain), self._chain, self._ready, harmless)
        self.found.append(self._open[line.head])

    def _harmless_to_server(self, line: Line) -> bool:
        """While it serves, a request's failure is what it logs; in a record it names the one that ends it."""
        if not self._ready:
            return False
        if line.head:
            return not LAST_RECORD.search(self._first_lines[line.head])
        of_traceback_before = self._chain == 0 and not FATAL.search(line.plain)
        return self._no_harm or of_traceback_before or bool(UVICORN.match(line.text))

    def _harmless_to_core(self, line: Line) -> bool:
        first = self._first_lines.get(line.head, "")
        return bool(CORE_NO_HARM.search(first) or (line.head and line.head == self._torn))

    def _close(self, line: Line) -> None:
        self._open.pop(line.head, None)


def _depth(who: str) -> int:
    return WORKER if "Worker" in who else CORE if who.startswith("EngineCore") else SERVER
