"""Bytes to requests. httptools (the parser of Node.js) reads the syntax; this adds the limits and what is refused."""

from __future__ import annotations

from collections import deque

import httptools

from qwen_fp8_ops.media.message import Request

MOST_REQUEST_BYTES = 64 * 1024
"""Of one request, head and body; a request that needs more wants something we do not offer."""


class RequestReader:
    """
    Attributes:
        requests: complete ones, in order; taken out by the connection.
        under_way: a request has begun and is not complete.
        finished: nothing that follows on this connection can be read any more.
    """

    def __init__(self) -> None:
        self.requests: deque[Request] = deque()
        self.under_way = False
        self.finished = False
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: dict[str, str] = {}
        self._unfinished_bytes = 0

    def feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.finished = True  # what follows is in another protocol, which we do not offer: the request itself is answered as HTTP/1.1
        except httptools.HttpParserInvalidMethodError:
            self._refuse(405)
        except httptools.HttpParserError:
            self._refuse(400)
        if self.under_way:
            self._unfinished_bytes += len(data)
            if self._unfinished_bytes > MOST_REQUEST_BYTES:
                self._refuse(413)

    def _refuse(self, status: int) -> None:
        self.under_way, self.finished = False, True
        self.requests.append(Request(refused=status))

    # Called by httptools while it is fed.

    def on_message_begin(self) -> None:
        self._target, self._headers = b"", {}
        self.under_way, self._unfinished_bytes = True, 0

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_message_complete(self) -> None:
        self.under_way = False
        method = self._parser.get_method().decode("latin-1")
        self.requests.append(Request(method, self._target, self._headers, self._parser.should_keep_alive()))
