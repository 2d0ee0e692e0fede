"""Where a file lies and how fast it can be read: the mount table, and a short read that asks the disk and not the page cache."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from qwen_fp8_ops.outside import clock

BLOCK_BYTES = 4 << 20
STREAMS = 4
"""One stream alone is slower than a disk or a parallel file system can be."""


@dataclass(frozen=True)
class Mount:
    """One line of /proc/mounts."""

    device: str
    point: str
    type: str


@dataclass(frozen=True)
class ReadRate:
    """``from_cache``: the bytes came from memory and say nothing of the disk; None when the kernel does not tell."""

    bytes: int
    seconds: float
    from_cache: bool | None

    @property
    def bytes_per_second(self) -> float:
        return self.bytes / self.seconds if self.seconds > 0 else 0.0


def mount_of(path: Path, table: str | None = None) -> Mount | None:
    """The mount that ``path``, or the nearest folder above it that exists, lies on: the longest prefix wins, of equal ones the last.

    As `df --output=source,target,fstype PATH`. None where there is no mount table.
    """
    if table is None:
        try:
            table = Path("/proc/mounts").read_text(errors="surrogateescape")
        except OSError:
            return None
    real = Path(os.path.realpath(path))
    found = None
    for line in table.splitlines():
        words = [_unescaped(word) for word in line.split(" ")]
        if len(words) >= 3 and real.is_relative_to(words[1]) and (found is None or len(words[1]) >= len(found.point)):
            found = Mount(*words[:3])
    return found


def _unescaped(word: str) -> str:
    """The kernel writes space, tab, newline and backslash as octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), word)


def read_rate(path: Path, *, limit_bytes: int = 256 << 20, limit_seconds: float = 2.0) -> ReadRate | None:
    """Read parts of ``path``, spread over all of it, in a few streams at once. None when it is empty or cannot be read.

    Reads past the page cache (O_DIRECT) where the file system allows it; else drops the pages first and looks whether they went.
    """
    try:
        size = path.stat().st_size
        direct = _opens_direct(path)
        plain = None if direct else os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        from_cache = False if plain is None else _stays_cached(plain, size)
    finally:
        if plain is not None:
            os.close(plain)
    offsets = _spread(size, limit_bytes)
    began = clock.monotonic()
    deadline = began + limit_seconds
    try:
        with ThreadPoolExecutor(STREAMS) as pool:
            read = sum(pool.map(lambda part: _read(path, part, deadline, direct), [offsets[stream::STREAMS] for stream in range(STREAMS)]))
    except OSError:
        return None
    seconds = clock.monotonic() - began
    return ReadRate(read, seconds, from_cache) if read and seconds > 0 else None


def _spread(size: int, limit_bytes: int) -> list[int]:
    blocks = -(-size // BLOCK_BYTES)
    step = max(1, -(-blocks * BLOCK_BYTES // max(BLOCK_BYTES, limit_bytes)))
    return [index * BLOCK_BYTES for index in range(0, blocks, step)]


def _opens_direct(path: Path) -> bool:
    """Some file systems refuse O_DIRECT when opening, others at the first read."""
    try:
        _read(path, [0], clock.monotonic() + 60, direct=True)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOTSUP):
            return False
        raise
    return True


def _read(path: Path, offsets: list[int], deadline: float, direct: bool) -> int:
    descriptor = os.open(path, os.O_RDONLY | (os.O_DIRECT if direct else 0))
    read = 0
    try:
        with mmap.mmap(-1, BLOCK_BYTES) as buffer:  # page-aligned, as O_DIRECT wants it
            for offset in offsets:
                if clock.monotonic() > deadline:
                    break
                read += os.preadv(descriptor, [buffer], offset)
    finally:
        os.close(descriptor)
    return read


def _stays_cached(descriptor: int, size: int) -> bool | None:
    """Drop the file's pages, then look: a read that may not wait succeeds only from memory."""
    with contextlib.suppress(OSError):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        return os.preadv(descriptor, [bytearray(4096)], (size // 2) & ~4095, os.RWF_NOWAIT) > 0
    except BlockingIOError:
        return False
    except OSError:
        return None
