"""Hash many files at once, as fast as the disk gives them. hashlib leaves the other threads free while it works."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

BUFFER_BYTES = 1 << 20
FEWEST_THREADS, MOST_THREADS = 4, 16
"""More threads than a small machine has cores: some of them wait for the disk. More than 16 are faster than any disk."""
TELL_SECONDS = 0.25


@dataclass(frozen=True)
class Progress:
    done_bytes: int
    total_bytes: int
    done_files: int
    files: int

    @property
    def fraction(self) -> float:
        return self.done_bytes / self.total_bytes if self.total_bytes else 1.0


@dataclass(frozen=True)
class Digest:
    """``git_blob`` only where it was asked for; ``mtime_ns`` is from before the first byte was read."""

    sha256: str
    git_blob: str | None
    bytes: int
    mtime_ns: int

    def is_of(self, path: Path) -> bool:
        """Is the file as large and as old as the one that was hashed?"""
        try:
            status = path.stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.bytes, self.mtime_ns)


def hash_files(
    folder: Path, names: Iterable[str], *, git_names: Collection[str] = frozenset(), heard: Callable[[Progress], None] | None = None
) -> dict[str, Digest | OSError]:
    """The digest of each file, or why it could not be read. ``heard`` is called from the caller's own thread."""
    sizes = {name: _size(folder / name) for name in names}
    largest_first = sorted(sizes, key=lambda name: -sizes[name])  # so that no thread begins a shard when the others are at the end
    total_bytes = sum(sizes.values())
    counts: dict[str, int] = dict.fromkeys(sizes, 0)
    stop = threading.Event()
    threads = min(MOST_THREADS, max(FEWEST_THREADS, len(os.sched_getaffinity(0))), max(1, len(sizes)))
    with ThreadPoolExecutor(threads, thread_name_prefix="hash") as pool:
        try:
            tasks = {pool.submit(_hash, folder, name, name in git_names, counts, stop): name for name in largest_first}
            left: set[Future[Digest | OSError]] = set(tasks)
            while left:
                _, left = wait(left, TELL_SECONDS, FIRST_COMPLETED)
                if heard:
                    heard(Progress(sum(counts.values()), total_bytes, len(tasks) - len(left), len(tasks)))
            return {name: task.result() for task, name in tasks.items()}
        finally:
            stop.set()  # Ctrl+C: the threads end at their next block
            pool.shutdown(wait=False, cancel_futures=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _hash(folder: Path, name: str, git: bool, counts: dict[str, int], stop: threading.Event) -> Digest | OSError:
    sha256 = hashlib.sha256()
    buffer = bytearray(BUFFER_BYTES)
    view = memoryview(buffer)
    try:
        with (folder / name).open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            blob = hashlib.sha1(b"blob %d\0" % status.st_size, usedforsecurity=False) if git else None
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while (count := file.readinto(buffer)) and not stop.is_set():
                sha256.update(view[:count])
                if blob:
                    blob.update(view[:count])
                counts[name] += count
    except OSError as error:
        return error
    return Digest(sha256.hexdigest(), blob.hexdigest() if blob else None, counts[name], status.st_mtime_ns)
