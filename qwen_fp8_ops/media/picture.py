"""The server's own small picture: an engine that can look at it has come all the way through this server."""

from __future__ import annotations

import struct
import zlib

SIDE = 32
"""Pixels. Vision models cut pictures into squares of 28 or 32."""


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png() -> bytes:
    """A grey slope, 8 bits a pixel (PNG specification, section 5)."""
    rows = b"".join(b"\0" + bytes(8 * (x % SIDE) for x in range(y, y + SIDE)) for y in range(SIDE))
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


PICTURE = _png()
