"""What a model folder holds and of which commit: ``manifest.json`` beside the weights.

The download writes it after each file, so an interruption costs no file that was whole; a start compares it with the folder.
"""

from __future__ import annotations

import re
import stat
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside.files import move_away, read_json, write_json

FILE = "manifest.json"
SCHEMA = 1


@dataclass(frozen=True)
class ManifestFile:
    """One file that was compared with what the Hub says of it.

    ``name`` is its path in the repository, ``sha256`` that of its content, ``mtime_ns`` the file's own stamp when it was hashed,
    ``git_blob`` the hash by which the Hub knows it when it is kept in git itself (None for large files).
    """

    name: str
    bytes: int
    sha256: str
    mtime_ns: int
    git_blob: str | None = None

    def unchanged(self, folder: Path) -> bool:
        """Is the file as large and as old as when it was hashed? Reads no content."""
        try:
            found = (folder / self.name).stat()
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size == self.bytes and found.st_mtime_ns == self.mtime_ns


@dataclass(frozen=True)
class Manifest:
    """``revision`` is the commit, 40 hex digits ("" when unknown); ``requested`` what was asked for, such as ``main``.

    ``complete`` says that every file that was asked for is here; ``include`` and ``exclude`` are the patterns of a partial choice,
    both empty for the whole repository.
    """

    repo: str
    revision: str
    requested: str
    files: tuple[ManifestFile, ...]
    complete: bool
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    schema: int = SCHEMA

    @property
    def partial(self) -> bool:
        """Was only a part of the repository asked for?"""
        return bool(self.include or self.exclude)

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    def file(self, name: str) -> ManifestFile | None:
        return next((file for file in self.files if file.name == name), None)


def read(folder: Path) -> Manifest | None:
    """The folder's manifest; None when it has none.

    Raises:
        OpsError: it is damaged, or of another version of this program.
    """
    path = folder / FILE
    value = read_json(path)
    if value is None:
        return None
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        schema = value.get("schema") if isinstance(value, dict) else None
        raise _damaged(path, f"schema {schema!r}, this version reads {SCHEMA}")
    try:
        return _parse(value)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, str(error) if isinstance(error, ValueError) else repr(error)) from error


def write(folder: Path, manifest: Manifest) -> None:
    """Replace the folder's manifest in one step.

    Raises:
        OpsError: the folder refuses the write.
    """
    value = asdict(manifest)
    write_json(folder / FILE, {"schema": value.pop("schema"), **value})


def is_inside(name: str) -> bool:
    """Does the name stay in its folder? Names come from a server, and from a file that anybody may have written."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name and str(path) == name


def _parse(value: dict[str, Any]) -> Manifest:
    files = tuple(_parse_file(entry) for entry in value["files"])
    if len({file.name for file in files}) < len(files):
        raise ValueError("a file is listed twice")
    if type(value["complete"]) is not bool:
        raise ValueError(f"complete is {value['complete']!r}")
    if not re.fullmatch(r"([0-9a-f]{40})?", value["revision"]):
        raise ValueError(f"revision is {value['revision']!r}")
    return Manifest(
        repo=str(value["repo"]),
        revision=value["revision"],
        requested=str(value["requested"]),
        files=files,
        complete=value["complete"],
        include=tuple(map(str, value.get("include", ()))),
        exclude=tuple(map(str, value.get("exclude", ()))),
    )


def _parse_file(value: dict[str, Any]) -> ManifestFile:
    name, size, sha256, mtime_ns = (value[key] for key in ("name", "bytes", "sha256", "mtime_ns"))
    git_blob = value.get("git_blob")
    if not isinstance(name, str) or not is_inside(name):
        raise ValueError(f"{name!r} is no name of a file of this folder")
    if type(size) is not int or size < 0 or type(mtime_ns) is not int:
        raise ValueError(f"{name} has the size {size!r} and the time {mtime_ns!r}")
    if not re.fullmatch(r"[0-9a-f]{64}", str(sha256)) or not (git_blob is None or re.fullmatch(r"[0-9a-f]{40}", str(git_blob))):
        raise ValueError(f"{name} has hashes that are none")
    return ManifestFile(name, size, str(sha256), mtime_ns, git_blob)


def _damaged(path: Path, problem: str) -> OpsError:
    return OpsError(f"{path} is damaged: {problem}", code="damaged-file", fix=f"Move it away: {move_away(path)}\nThe next download or verify writes a new one.")
