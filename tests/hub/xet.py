"""Xet storage as hf-xet expects it: files are made of chunks, chunks lie one after the other in a larger object, each with a header.

Here each file is one object of its own, and nothing is compressed. The answer that tells how to rebuild a file, and the form of a
chunk, are those of the Hub's content-addressed storage, version 1.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from tests.hub.content import Blob

CHUNK_BYTES = 1 << 16
HEADER_BYTES = 8


def reconstruction(address: str, blob: Blob, begin: int, end: int, url: str) -> dict[str, Any]:
    """How to rebuild the bytes ``begin`` to ``end`` of a file: from which chunks, and where these lie."""
    first, last = begin // CHUNK_BYTES, (end - 1) // CHUNK_BYTES + 1
    length = min(last * CHUNK_BYTES, blob.size) - first * CHUNK_BYTES
    chunks = {"start": first, "end": last}
    lie_at = {"start": first * (CHUNK_BYTES + HEADER_BYTES), "end": first * (CHUNK_BYTES + HEADER_BYTES) + length + (last - first) * HEADER_BYTES - 1}
    return {
        "offset_into_first_range": begin - first * CHUNK_BYTES,
        "terms": [{"hash": address, "unpacked_length": length, "range": chunks}],
        "fetch_info": {address: [{"range": chunks, "url": url, "url_range": lie_at}]},
    }


@cache
def stored(blob: Blob) -> Blob:
    """The object that holds the file's chunks."""
    pieces = (blob.read(begin, CHUNK_BYTES) for begin in range(0, blob.size, CHUNK_BYTES))
    return Blob(b"".join(_header(len(piece)) + piece for piece in pieces), large=True)


def _header(count: int) -> bytes:
    """Version 0, stored bytes, no compression, bytes of content."""
    return b"\0" + count.to_bytes(3, "little") + b"\0" + count.to_bytes(3, "little")
