"""Server-sent events, the form in which an answer streams: bytes in as they arrive, the data of whole events out.

Follows the HTML standard's "event stream interpretation" as far as the OpenAI protocol uses it: lines end in CR LF, LF or CR, lines
that begin with a colon are comments, several data lines of one event are joined, and an event that the end of the stream cuts
is dropped. Pure; it never reads by itself, so blocking and asynchronous clients share it.
"""

from __future__ import annotations

import re

LINE_END = re.compile(rb"\r\n|\r|\n")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class SseDecoder:
    """Feed it every chunk of one stream in order; where the chunks were cut makes no difference."""

    def __init__(self) -> None:
        self._partial = b""
        self._after_cr = False
        self._first_line = True
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[str]:
        """The data of every event that ends within ``chunk``."""
        if not chunk:
            return []
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]  # the CR that ended the chunk before was the first half of this line end
            self._after_cr = False
            if not chunk:
                return []
        self._after_cr = chunk.endswith(b"\r")
        lines = LINE_END.split(chunk)
        lines[0] = self._partial + lines[0]
        self._partial = lines.pop()
        return [data for line in lines if (data := self._take(line)) is not None]

    def _take(self, line: bytes) -> str | None:
        """Add one line to the event in hand; the event's data when the line, an empty one, ends it."""
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(BYTE_ORDER_MARK)
        if not line:
            data, self._data = self._data, []
            return "\n".join(data) if data else None
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" ").decode("utf-8", "replace"))
        return None
