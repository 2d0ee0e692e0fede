"""Which files a request can reach: those under the root, and never through a hidden name.

A path is opened with O_PATH first, which looks without touching. Where the kernel says the opened thing lies decides, and the
reading descriptor is made from that one: whatever happens to names and links in between, nothing else can be read.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote_to_bytes

ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ENXIO, errno.ESTALE})
"""Reasons to say "not found"; others (too many open files, a failing disk) are troubles of ours."""


def read_target(target: bytes) -> str | None:
    """The path below the root that a request target means; "" is the root itself, and a folder's path ends in a slash.

    None for what no client of ours asks for: a hidden name (which "." and ".." are too), NUL, a backslash, no path at all.
    """
    path = target.partition(b"?")[0].partition(b"#")[0]
    if not path.startswith(b"/"):  # absolute form, as to a proxy: http://host/path
        scheme, mark, rest = path.partition(b"://")
        if not mark or scheme.lower() not in (b"http", b"https"):
            return None
        path = b"/" + rest.partition(b"/")[2]
    text = os.fsdecode(unquote_to_bytes(path))
    names = [name for name in text.split("/") if name]
    if not all(map(is_public, names)):
        return None
    return "/".join(names) + ("/" if names and text.endswith("/") else "")


def is_public(name: str) -> bool:
    return not name.startswith(".") and "\0" not in name and "\\" not in name


class Found:
    """Something under the root, held open so that it stays the same thing. A context manager."""

    __slots__ = ("_descriptor", "path", "stat")

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor = descriptor
        self.path = path
        self.stat = os.fstat(descriptor)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.stat.st_mode)

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.stat.st_mode)

    def open(self) -> int:
        """A new descriptor for reading; the caller closes it.

        Raises:
            OSError: we may not read it.
        """
        return os.open(f"/proc/self/fd/{self._descriptor}", os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._descriptor)


class Jail:
    """
    Args:
        root: an existing folder; what it is now stays the root, also when a link on the way to it changes.
    """

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self._prefix = self.root.rstrip("/") + "/"

    def look(self, path: str) -> Found | None:
        """What lies at a path from ``read_target``; None when there is nothing to be had.

        Raises:
            OSError: this machine is in trouble; never because of the path.
        """
        try:
            descriptor = os.open(self._prefix + path, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in ABSENT:
                return None
            raise
        try:
            real = os.readlink(f"/proc/self/fd/{descriptor}")
            if self._holds(real):
                return Found(descriptor, real)
        except OSError:  # a file server that does not answer fails even to say what the file is
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def _holds(self, real: str) -> bool:
        return real == self.root or (real.startswith(self._prefix) and "/." not in real[len(self._prefix) - 1 :])
