"""When the engine has died, and only then: which lines of its log say why. ``engine.failures`` judges them.

The last traceback of a dying vLLM is rarely the cause: the API server reports that the engine core failed, which reports that a
worker failed. So the innermost process that says something of its own is believed. Where only the outer ones complain, an inner one
was killed. Where it was the API server alone, its last traceback counts. What it logs of a request that failed, or of a task that
nobody waited for, did no harm and never counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
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
SILENT = "a process of the engine ended without a word, as one that was killed does (for want of memory, or by hand)"
UNTOLD = "its log does not say why"

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
FAREWELL = re.compile(r"nanobind: | - (?:leaked|\.\.\. skipped)|See https://nanobind|.*resource_tracker|  warnings\.warn\(|INFO:     ")


@dataclass(frozen=True)
class RootCause:
    """``lines``: the telling one first, then more evidence. Where ``told`` is false they are only the log's last ones."""

    lines: tuple[str, ...]
    told: bool = True

    @property
    def headline(self) -> str:
        return self.lines[0] if self.told and self.lines else UNTOLD


@dataclass
class Message:
    """One complaint. ``depth``: 2 a worker's, 1 the engine core's, 0 the API server's. Messages of one traceback, with what it
    came from, have one ``chain``. ``harmless``: of a request, not of the engine.
    """

    depth: int
    text: str
    chain: int
    after_ready: bool = False
    harmless: bool = False

    @property
    def second_hand(self) -> bool:
        return bool(SECOND_HAND.search(self.text))


def find_root_cause(log: Sequence[str], *, most: int = 6, was_ready: bool = False) -> RootCause:
    """Read the log of a dead engine.

    Args:
        was_ready: it served already where the log begins: the first lines of a long one are not kept.
    """
    messages = [message for message in _messages(log, was_ready) if not message.harmless]
    own = [message for message in messages if not message.second_hand]
    inner = sorted((message for message in own if message.depth), key=lambda message: -message.depth)  # stable: first in the log first
    if inner:
        lines = _texts(inner)
    elif len(own) < len(messages):
        outer = [message for message in own if not message.after_ready]
        lines = _texts(outer) or [SILENT, *_texts(messages)]
    else:
        last = [message for message in own if message.chain == own[-1].chain]
        lines = _texts(reversed(last))
    if not lines:
        ends_with = _texts(Message(0, _split(line)[2].strip(), 0) for line in log if line.strip() and not FAREWELL.match(line))
        return RootCause(tuple(ends_with[-most:]), told=False)
    return RootCause(tuple(lines[:most]))


def _texts(messages: Iterable[Message]) -> list[str]:
    return list(dict.fromkeys(message.text if len(message.text) <= LONGEST else message.text[: LONGEST - 1] + "…" for message in messages))


def _messages(log: Sequence[str], ready: bool) -> list[Message]:
    """Every complaint in the log's order, each with the lines that its text goes on over.

    vLLM puts process, time and place before every line of a record, and the records of eight workers mix: what belongs together is
    told by that head. Lines without one are what Python itself wrote. A log may begin within a message: that one is old, and not
    what the engine died of.
    """
    found: list[Message] = []
    unfinished: dict[str, Message] = {}
    records: dict[str, str] = {}
    chain, chained, dying, no_harm, before = 0, False, 0, False, ""
    torn = _split(log[0])[1] if ready and log else ""
    for index, line in enumerate(log):
        who, head, text = _split(line)
        first = records.setdefault(head, text) if head else ""
        ready = ready or bool(WAS_READY.search(text))
        plain = UVICORN.sub("", text.strip())
        if TRACEBACK.match(plain):
            no_harm = no_harm if chained else bool(NO_HARM.search(before)) or (ready and index == 0)
            chain, chained = (chain if chained else chain + 1), False
            unfinished.pop(head, None)
        elif CHAINED.match(plain):
            chained = True
            unfinished.pop(head, None)
        elif child := CHILD_DIES.fullmatch(plain):
            dying = _depth(child[1])
        elif EXCEPTION.fullmatch(plain) or FATAL.search(plain) or UVICORN.match(text):
            depth = 2 if RANK.match(plain) else _depth(who) if who else dying
            dying = dying if who else 0
            if depth == 0:
                of_traceback_before = chain == 0 and not FATAL.search(plain)
                harmless = ready and (not LAST_RECORD.search(first) if head else no_harm or of_traceback_before or bool(UVICORN.match(text)))
            else:
                harmless = bool(CORE_NO_HARM.search(first) or (head and head == torn))
            unfinished[head] = Message(depth, INPUT_VALUE.sub("", plain), chain, ready, harmless)
            found.append(unfinished[head])
        elif head in unfinished and _goes_on(text, has_place=bool(head)):
            _add_detail(unfinished[head], plain)
        else:
            unfinished.pop(head, None)
        before = before if head else plain
    return found


def _split(line: str) -> tuple[str, str, str]:
    """Process, whole head (empty where there is no time and place in it) and text of a line."""
    found = HEAD.match(line)
    if not found:
        return "", "", line
    return found["who"], found[0] if found["place"] else "", line[found.end() :]


def _depth(who: str) -> int:
    return 2 if "Worker" in who else 1 if who.startswith("EngineCore") else 0


def _goes_on(text: str, *, has_place: bool) -> bool:
    """Does a message go on with this line? In a record every line is part of it, elsewhere only what is set in."""
    return bool(text.strip()) and (has_place or text[0].isspace()) and not text.startswith('  File "')


def _add_detail(message: Message, detail: str) -> None:
    if not DETAIL_NOISE.match(detail) and len(message.text) < LONGEST:
        message.text += (" " if message.text[-1] in ".:;,!?" else ": ") + INPUT_VALUE.sub("", detail)
