"""What goes between a connection and the answers: one request in, one answer out."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Request:
    """
    Attributes:
        headers: names in lower case; a repeated header is joined by commas.
        refused: the status to answer a request with that could not be read; 0 for one that could.
    """

    method: str = ""
    target: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    keep_alive: bool = False
    refused: int = 0


@dataclass(frozen=True, slots=True)
class FileSlice:
    """Bytes of an open file; whoever sends it closes ``descriptor``."""

    descriptor: int
    start: int
    count_bytes: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The body is ``body``, or ``file`` where that is set; HEAD has neither, but the same headers."""

    status: int
    headers: Headers
    body: bytes = b""
    file: FileSlice | None = None


Later = Callable[[], Answer]
"""An answer that takes long to make: to be called in a thread."""

LAST_SECOND = 253_402_300_799  # of the year 9999

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


def plain(status: int, *headers: tuple[str, str]) -> Answer:
    """A short answer that says no more than its status: nothing about the file system can leak."""
    body = f"{status} {HTTPStatus(status).phrase}\n".encode()
    return Answer(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), *headers], body)


def head_bytes(answer: Answer, *, keep_alive: bool) -> bytes:
    """Status line and headers, as they go on the wire."""
    lines = [f"{name}: {value}\r\n" for name, value in answer.headers]
    connection = "keep-alive" if keep_alive else "close"
    text = f"{STATUS_LINES[answer.status]}Date: {http_date(int(time.time()))}\r\nConnection: {connection}\r\nX-Content-Type-Options: nosniff\r\n{''.join(lines)}\r\n"
    return text.encode("latin-1")


@functools.lru_cache(maxsize=1024)
def http_date(second: int) -> str:
    return formatdate(in_calendar(second), usegmt=True)


def in_calendar(seconds: float) -> float:
    """A file can claim a time that no calendar has; the nearest one that can be written."""
    return min(max(seconds, 0), LAST_SECOND)
