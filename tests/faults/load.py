"""Clients that ask without pause and judge every answer: whole, refused, an error that was told, or silence."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

SILENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.1


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
    """A context: its clients ask from its beginning to its end. ``marks`` counts the ends."""

    port: int
    clients: int = 4
    seconds: float = 0.2
    key: str = ""
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
        number = 0
        while not self._done.is_set():
            number += 1
            end, told = ask(self.port, f"{client}-{number}", seconds=self.seconds, stream=bool(number % 2), key=self.key)
            with self._lock:
                self.marks[end] += 1
                if end is End.GARBLED:
                    self.garbled.append(told)
            if end is not End.WHOLE:
                self._done.wait(PAUSE_SECONDS)


def ask(port: int, id: str, *, seconds: float = 0.0, stream: bool = False, key: str = "", content: Any = "Hi") -> tuple[End, str]:
    """One request on a connection of its own; what it came to, and what was said."""
    pieces = 8
    body = {"id": id, "messages": [{"role": "user", "content": content}], "seconds": seconds, "stream": stream, "pieces": pieces, "max_tokens": pieces}
    headers = {"Content-Type": "application/json", "Connection": "close", **({"Authorization": f"Bearer {key}"} if key else {})}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SILENCE_SECONDS)
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
    return judge(answer.status, text, id, pieces, stream)


def judge(status: int, text: bytes, id: str, pieces: int, stream: bool) -> tuple[End, str]:
    told = text.decode(errors="replace")
    if status == 200:
        try:
            return (End.WHOLE if (_is_whole_stream if stream else _is_whole)(text, id, pieces) else End.ERROR), told
        except (ValueError, KeyError, TypeError, IndexError):
            return End.GARBLED, told
    if status >= 500 and status != 503:
        return End.ERROR, told
    return End.REFUSED, told


def _is_whole(text: bytes, id: str, pieces: int) -> bool:
    """
    Raises:
        ValueError: it is the answer to something else, or not all of it.
    """
    value = json.loads(text)
    if value["id"] != id or value["choices"][0]["pieces"] != list(range(pieces)):
        raise ValueError("not the answer to this")
    return True


def _is_whole_stream(text: bytes, id: str, pieces: int) -> bool:
    """False for one that tells of an error.

    Raises:
        ValueError: pieces are missing, double or of another answer, and nobody says so.
    """
    *events, end, rest = text.split(b"\n\n")
    if (end, rest) != (b"data: [DONE]", b""):
        raise ValueError("it has no end")
    values = [json.loads(event.removeprefix(b"data: ")) for event in events]
    if any("error" in value for value in values):
        return False
    if [(value["id"], value["piece"]) for value in values] != [(id, piece) for piece in range(pieces)]:
        raise ValueError("not the answer to this")
    return True
