"""Small requests to servers of our own on this host: health, metrics, one token.

The standard library's client: it imports in a few milliseconds, which `status` needs, and every call has a time limit. The limit is
for the whole call: what answers on a port may be anything, a server that sends one byte now and then among them.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
LARGEST_BYTES = 64 << 20
"""More than any page of ours; the rest of an endless one is not read."""


@dataclass(frozen=True)
class Answer:
    """``status`` is None when there was no HTTP answer; ``problem`` then says why."""

    status: int | None
    body: bytes
    problem: str = ""

    @property
    def ok(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    def json(self) -> Any | None:
        """The body as JSON; None when it is not."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def get(url: str, *, timeout: float, key: str = "") -> Answer:
    return _ask("GET", url, None, timeout, key, {})


def post(url: str, value: Any, *, timeout: float, key: str = "", headers: Mapping[str, str] = NO_HEADERS) -> Answer:
    return _ask("POST", url, json.dumps(value).encode(), timeout, key, {"Content-Type": "application/json", **headers})


def _ask(method: str, url: str, body: bytes | None, timeout: float, key: str, more: Mapping[str, str]) -> Answer:
    parts = urlsplit(url)
    headers = {**({"Authorization": f"Bearer {key}"} if key else {}), **more}
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=timeout)
    late = threading.Event()
    limit: threading.Timer | None = None
    try:
        connection.connect()
        limit = threading.Timer(timeout, _hang_up, [connection.sock, late])
        limit.daemon = True
        limit.start()
        connection.request(method, parts.path or "/", body, headers)
        answer = connection.getresponse()
        found = Answer(answer.status, answer.read(LARGEST_BYTES))
    except (OSError, http.client.HTTPException, UnicodeError) as error:  # UnicodeError: a host that is no name
        found = Answer(None, b"", str(error) or type(error).__name__)
    finally:
        if limit:
            limit.cancel()
        connection.close()
    return Answer(None, b"", "timed out") if late.is_set() else found


def _hang_up(connection: socket.socket, late: threading.Event) -> None:
    """A socket's own time limit is for one read only; whoever waits on this one finds it at its end."""
    late.set()
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
