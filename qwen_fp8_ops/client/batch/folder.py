"""The images and videos of a folder, found as they are needed: one folder's names are in memory at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from qwen_fp8_ops.client.batch.item import Item, Source
from qwen_fp8_ops.client.media_files import shown
from qwen_fp8_ops.client.media_types import HEAD_BYTES, Kind, detect
from qwen_fp8_ops.errors import OpsError

IMAGES = frozenset(["jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "heif"])
VIDEOS = frozenset(["mp4", "m4v", "webm", "mkv", "avi", "mov", "qt"])


@dataclass(frozen=True)
class Folder:
    """The items of a folder in the order of their names, a folder's own files before those of its subfolders.

    A name's ending says what is meant to be an image, so that a damaged one, or a link to nothing, is told and not passed over; a
    file without a known ending counts when its first bytes are an image's. What is sent is decided by the content alone. Hidden
    names are passed over, and links to folders are not followed. A subfolder that cannot be read is an item that fails.

    Args:
        patterns: such as ``*.png``; one with a slash is held against the path below ``root``. Empty takes all.
    """

    root: Path
    prompt: str
    recursive: bool = False
    patterns: tuple[str, ...] = ()
    kinds: frozenset[Kind] = frozenset({"image"})

    def __iter__(self) -> Iterator[Item]:
        for path, kind in self._files(os.fspath(self.root), ""):
            yield Item(readable(path), self.prompt, (Source(os.path.join(self.root, path), kind),))

    def count(self) -> int:
        return sum(1 for _ in self._files(os.fspath(self.root), ""))

    def _files(self, folder: str, prefix: str) -> Iterator[tuple[str, Kind]]:
        """Paths below the root.

        Raises:
            OpsError: the root cannot be read (code ``unreadable-folder``).
        """
        try:
            files, folders = _names(folder)
        except OSError as error:
            if not prefix:
                raise OpsError(
                    f"The folder {shown(folder)} cannot be read: {error.strerror}", code="unreadable-folder", fix="Look at its rights: ls -ld FOLDER"
                ) from error
            yield prefix, min(self.kinds)  # fails as a file would: one lost+found must not end the run over everything else
            return
        for name in files:
            path = prefix + name
            kind = self._kind(os.path.join(folder, name), path) if self._wanted(name, path) else None
            if kind is not None and kind in self.kinds:
                yield path, kind
        if self.recursive:
            for name in folders:
                yield from self._files(os.path.join(folder, name), f"{prefix}{name}/")

    def _wanted(self, name: str, path: str) -> bool:
        return not self.patterns or any(fnmatch(path if "/" in pattern else name, pattern) for pattern in self.patterns)

    def _kind(self, file: str, path: str) -> Kind | None:
        ending = path.rpartition(".")[2].lower() if "." in path else ""
        if ending in IMAGES:
            return "image"
        if ending in VIDEOS:
            return "video"
        try:
            with open(file, "rb") as opened:
                media = detect(opened.read(HEAD_BYTES))
        except OSError:
            return None
        return media.kind if media else None


def _names(folder: str) -> tuple[list[str], list[str]]:
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif _may_be_file(entry):
                files.append(entry.name)
    return sorted(files), sorted(folders)


def _may_be_file(entry: os.DirEntry[str]) -> bool:
    """A link to nothing counts, and one to itself or to where we may not look: what is wrong with it is told when it is opened."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:
        return True


def readable(path: str | Path) -> str:
    """A path as JSON can hold it: bytes that are not UTF-8 are written as ``\\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def check_folder(root: Path) -> None:
    """
    Raises:
        OpsError: it is no folder (code ``no-such-folder``).
    """
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise OpsError(f"{shown(root)} {what}", code="no-such-folder", fix="Name the folder that holds the images.")
