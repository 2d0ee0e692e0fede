"""Clients that ask without pause and judge every answer: whole, refused, an error that was told, or silence."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

SILENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.1
PIECES = 8
"""Of each answer."""


class End(StrEnum):
    """What a request came to. ``absent``: nobody took the connection; ``refused``: told to come again, or not to."""

    WHOLE = "whole"
    REFUSED = "refused"
    ABSENT = "absent"
    ERROR = "error"
    SILENCE = "silence"
    GARBLED = "garbled"


@dataclass
class Load:
    """A context: its clients ask from its beginning to its end. ``marks`` counts the ends. ``put`` asks (port, id, seconds that the
    answer may take, streamed or not) and judges the answer: the stand-in's, unless told otherwise.
    """

    port: int
    clients: int = 4
    seconds: float = 0.2
    put: Callable[[int, str, float, bool], tuple[End, str]] | None = None
    marks: Counter[End] = field(default_factory=Counter)
    garbled: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask_on, args=(number,)) for number in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Ask nothing new; wait for the answers that are due."""
        self._done.set()
        for thread in self._threads:
            thread.join(2 * SILENCE_SECONDS)

    @property
    def whole(self) -> int:
        return self.marks[End.WHOLE]

    @property
    def told(self) -> int:
        """Lost, and told so: an error, or a connection that broke off."""
        return self.marks[End.ERROR]

    @property
    def silent(self) -> int:
        """Lost without a word, or with half an answer that looks like a whole one. There must be none."""
        return self.marks[End.SILENCE] + self.marks[End.GARBLED]

    def _ask_on(self, client: int) -> None:
        number, put = 0, self.put or ask
        while not self._done.is_set():
            number += 1
            end, told = put(self.port, f"{client}-{number}", self.seconds, bool(number % 2))
            with self._lock:
                self.marks[end] += 1
                if end is End.GARBLED:
                    self.garbled.append(told)
            if end is not End.WHOLE:
                self._done.wait(PAUSE_SECONDS)


def ask(port: int, id: str, seconds: float = 0.0, stream: bool = False, *, content: Any = "Hi") -> tuple[End, str]:
    """One request to the stand-in; what it came to, and what was said."""
    body = {"id": id, "messages": [{"role": "user", "content": content}], "seconds": seconds, "stream": stream, "pieces": PIECES, "max_tokens": PIECES}
    return exchange(port, body, _is_whole_stream if stream else _is_whole)


def exchange(
    port: int, body: dict[str, Any], is_whole: Callable[[bytes, dict[str, Any]], bool], *, silence_seconds: float = SILENCE_SECONDS
) -> tuple[End, str]:
    """One request on a connection of its own.

    Args:
        is_whole: of the text of an answer with status 200, and what was asked: False when it tells of an error, ValueError and the like
            when it is cut short or the answer to something else.
    """
    headers = {"Content-Type": "application/json", "Connection": "close"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=silence_seconds)
    try:
        connection.connect()
    except OSError:
        connection.close()
        return End.ABSENT, ""
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
    except TimeoutError:
        return End.SILENCE, ""
    except (OSError, http.client.HTTPException) as error:
        return End.ERROR, repr(error)
    finally:
        connection.close()
    told = text.decode(errors="replace")
    if answer.status == 200:
        try:
            return (End.WHOLE if is_whole(text, body) else End.ERROR), told
        except (ValueError, KeyError, TypeError, IndexError):
            return End.GARBLED, told
    return (End.ERROR if answer.status >= 500 and answer.status != 503 else End.REFUSED), told


def _is_whole(text: bytes, body: dict[str, Any]) -> bool:
    value = json.loads(text)
    if value["id"] != body["id"] or value["choices"][0]["pieces"] != list(range(PIECES)):
        raise ValueError("not the answer to this")
    return True


def events_of(text: bytes) -> list[Any]:
    """
    Raises:
        ValueError: it is no whole stream.
    """
    *events, end, rest = text.split(b"\n\n")
    if (end, rest) != (b"data: [DONE]", b""):
        raise ValueError("it has no end")
    return [json.loads(event.removeprefix(b"data: ")) for event in events]


def _is_whole_stream(text: bytes, body: dict[str, Any]) -> bool:
    values = events_of(text)
    if any("error" in value for value in values):
        return False
    if [(value["id"], value["piece"]) for value in values] != [(body["id"], piece) for piece in range(PIECES)]:
        raise ValueError("not the answer to this")
    return True
