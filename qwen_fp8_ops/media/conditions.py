"""The conditional half of HTTP (RFC 9110, 13 and 14): has the client got it already, and which bytes does it want."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from qwen_fp8_ops.media.message import http_date

ONE_RANGE = re.compile(r"bytes=\s*([0-9]{0,100})-([0-9]{0,100})\s*", re.IGNORECASE)
ENTITY_TAG = re.compile(r'(?:W/)?("[^"]*")')


@dataclass(frozen=True, slots=True)
class Version:
    """Which state of a file this is."""

    etag: str
    modified: str

    @classmethod
    def of(cls, mtime_ns: int, size_bytes: int) -> Version:
        return cls(f'"{mtime_ns:x}-{size_bytes:x}"', http_date(mtime_ns // 1_000_000_000))


def is_unchanged(headers: Mapping[str, str], version: Version) -> bool:
    """Does the client hold this very version, so that 304 is enough? If-None-Match counts before If-Modified-Since."""
    tags = headers.get("if-none-match")
    if tags is not None:
        return tags.strip() == "*" or version.etag in ENTITY_TAG.findall(tags)
    date = headers.get("if-modified-since")
    if date is None:
        return False
    since, modified = _seconds(date), _seconds(version.modified)
    return since is not None and modified is not None and modified <= since


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes ``start`` to ``end``, without ``end``."""

    start: int
    end: int

    @property
    def count_bytes(self) -> int:
        return self.end - self.start


class UnsatisfiableError(Exception):
    """The range begins behind the file's end: 416."""


def wanted_span(headers: Mapping[str, str], version: Version, size_bytes: int) -> Span | None:
    """The single range asked for; None for the whole file: no range, several, a malformed one, or one of another version (If-Range).

    Raises:
        UnsatisfiableError: no byte of the range exists.
    """
    text = headers.get("range")
    if text is None or headers.get("if-range", version.etag).strip() not in (version.etag, version.modified):
        return None
    found = ONE_RANGE.fullmatch(text)
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    if not first:
        span = Span(max(0, size_bytes - int(last)), size_bytes)
    elif last and int(last) < int(first):
        return None
    else:
        span = Span(int(first), min(int(last) + 1, size_bytes) if last else size_bytes)
    if span.start >= span.end:
        raise UnsatisfiableError
    return span


def _seconds(date: str) -> float | None:
    """A date of HTTP in seconds; None when it is not one."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
