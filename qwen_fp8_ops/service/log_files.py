"""Log files of the children: one per attempt, cut down when they grow, read while they are written.

A child writes to its file directly and not through us: it neither blocks nor dies when the supervisor does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from qwen_fp8_ops.outside.files import write_error

KEPT = 9
MOST_BYTES = 4 << 20
"""Read at once, at most."""
FINGERPRINT_BYTES = 256
"""So much of what was read last is remembered, to know the same text again in path.1."""


def rotate(path: Path) -> None:
    """Make room for a new attempt's file: path becomes path.1, path.1 becomes path.2, the oldest goes."""
    _shift(path)
    _move(path, _numbered(path, 1))


def cut(path: Path, most_bytes: int) -> bool:
    """Rotate a file that its writer keeps open: copy it to path.1 and empty it.

    The writer appends, so it goes on at the new beginning; lines written between copy and emptying are lost.
    """
    try:
        if path.stat().st_size <= most_bytes:
            return False
    except FileNotFoundError:
        return False
    _shift(path)
    shutil.copyfile(path, _numbered(path, 1))
    os.truncate(path, 0)
    return True


def renew(path: Path, most_bytes: int) -> bool:
    """Rotate a file whose writers look for it at each write and make it where it is gone: no line is lost."""
    try:
        if path.stat().st_size <= most_bytes:
            return False
    except FileNotFoundError:
        return False
    rotate(path)
    return True


def cut_all(held: Iterable[Path], reopened: Iterable[Path], most_bytes: int) -> None:
    """
    Args:
        held: kept open by their writers; reopened: not.

    Raises:
        OpsError: the disk has no room for the copy; that log goes on growing.
    """
    for shorten, paths in ((cut, held), (renew, reopened)):
        for path in paths:
            try:
                shorten(path, most_bytes)
            except OSError as error:
                raise write_error(path, error) from error


def _shift(path: Path) -> None:
    _numbered(path, KEPT).unlink(missing_ok=True)
    for number in range(KEPT - 1, 0, -1):
        _move(_numbered(path, number), _numbered(path, number + 1))


def _move(path: Path, to: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # there is none, or another start has just moved it
        path.rename(to)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def last_lines(path: Path, count: int, *, most_bytes: int = 1 << 20) -> list[str]:
    """The end of a log; empty when there is none. A progress bar's carriage returns count as line ends."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            size = file.tell()
            file.seek(max(0, size - most_bytes))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = text.replace("\r", "\n").split("\n")
    return [line for line in lines if line.strip()][-count:]


class Tail:
    """New whole lines of a growing file, each time it is asked; begins again when the file was cut or replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._inode = 0
        self._partial = b""
        self._before = b""

    def lines(self) -> Iterator[str]:
        missed = b""
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    missed = self._missed()
                    self._inode, self._offset, self._before = status.st_ino, 0, b""
                file.seek(self._offset)
                new = file.read(MOST_BYTES)
        except OSError:
            return
        self._passed(new)
        yield from self._whole(missed + new)

    def skip(self, keep: int) -> list[str]:
        """Pass over what is there already; the last ``keep`` lines of it, but for one that is still being written."""
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                self._inode, self._offset, self._partial = status.st_ino, max(0, status.st_size - MOST_BYTES), b""
                begun_before = self._offset > 0
                file.seek(self._offset)
                text = file.read(status.st_size - self._offset)
        except OSError:
            return []
        self._passed(text)
        found = list(self._whole(text))[1 if begun_before else 0 :]
        return found[-keep:] if keep else []

    def _passed(self, text: bytes) -> None:
        self._offset += len(text)
        self._before = (self._before + text)[-FINGERPRINT_BYTES:]

    def _whole(self, new: bytes) -> Iterator[str]:
        *whole, self._partial = (self._partial + new).replace(b"\r", b"\n").split(b"\n")
        yield from (line.decode(errors="replace") for line in whole if line.strip())

    def _missed(self) -> bytes:
        """What was written after the last look and before the file was replaced or cut: ``rotate`` and ``cut`` leave it in path.1."""
        try:
            with _numbered(self.path, 1).open("rb") as file:
                file.seek(self._offset - len(self._before))
                if self._before and file.read(len(self._before)) == self._before:
                    return file.read(MOST_BYTES) + b"\n"
        except OSError:
            pass  # somebody else moved it away
        self._partial = b""
        return b""
