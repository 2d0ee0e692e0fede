"""Room on the disk: asked before the first byte, and told in its own words when it ends on the way."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qwen_fp8_ops.errors import OpsError, PreflightError
from qwen_fp8_ops.outside.files import write_error


@dataclass(frozen=True)
class Room:
    """What the file system of a folder has for us; ``files`` is None where it sets no number of them."""

    free_bytes: int
    files: int | None


def room(folder: Path) -> Room:
    """
    Raises:
        OpsError: the folder cannot be asked.
    """
    try:
        found = os.statvfs(existing(folder))
    except OSError as error:
        raise OpsError(f"{folder} cannot be looked at: {error.strerror}", code="unreadable-file") from error
    return Room(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next((path for path in (folder, *folder.absolute().parents) if path.exists()), Path("/"))


def check_room(folder: Path, needed_bytes: int, total_bytes: int, new_files: int) -> None:
    """Refuse what cannot end well.

    Args:
        needed_bytes: what is still to come; ``total_bytes`` counts what is there already, too.
        new_files: how many files and folders will be made.

    Raises:
        PreflightError: the disk is too small, with both numbers.
    """
    here = room(folder)
    quoted = shlex.quote(str(existing(folder)))
    if here.free_bytes < needed_bytes:
        there = total_bytes - needed_bytes
        have = f" ({gigabytes(there)} of {gigabytes(total_bytes)} are there already)" if there else ""
        raise PreflightError(
            f"The disk of {folder} is too small: {gigabytes(needed_bytes)} are needed{have}, {gigabytes(here.free_bytes)} are free",
            code="disk-too-small",
            fix=f"Free {gigabytes(needed_bytes - here.free_bytes)} (`df -h {quoted}`), or name another folder: --to /other/folder, or MODEL_PATH.",
        )
    if here.files is not None and here.files < new_files:
        raise PreflightError(
            f"The disk of {folder} has no inodes left: {new_files} files are needed, {here.files} can be made",
            code="no-inodes",
            fix=f"Remove files that nobody needs (`df -i {quoted}`), or name another folder: --to /other/folder, or MODEL_PATH.",
        )


def disk_error(path: Path, error: OSError) -> OpsError:
    """A refused write in words: full, out of inodes, over quota, or not allowed."""
    again = "then run it again: what was fetched is kept."
    quoted = shlex.quote(str(existing(path.parent)))
    if error.errno == errno.EDQUOT:
        return OpsError(f"Your quota is used up: {path} cannot be written", code="quota", fix=f"See `quota -s` (Lustre: lfs quota -h {quoted}), make room or ask for more, {again}")
    if error.errno == errno.ENOSPC and room(path.parent).files == 0:
        return OpsError(f"The disk has no inodes left: {path} cannot be written", code="no-inodes", fix=f"Remove files that nobody needs (`df -i {quoted}`), {again}")
    if error.errno == errno.ENOSPC:
        return OpsError(f"The disk is full: {path} cannot be written", code="disk-full", fix=f"Make room (`df -h {quoted}`), {again}")
    if error.errno == errno.EFBIG:
        return OpsError(f"{path} is larger than a file may be here", code="file-too-large", fix="See `ulimit -f`, and the file system's own limit (FAT: 4 GiB).")
    return write_error(path, error)


@contextlib.contextmanager
def disk_words(path: Path) -> Iterator[None]:
    """
    Raises:
        OpsError: a write inside was refused; in the words of ``disk_error``.
    """
    try:
        yield
    except OSError as error:
        raise disk_error(path, error) from error
    except OpsError as error:
        if isinstance(error.__cause__, OSError):
            raise disk_error(path, error.__cause__) from error
        raise


def gigabytes(count: int) -> str:
    """Decimal, as disks and the Hub count."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
