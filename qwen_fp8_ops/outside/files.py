"""Files that other processes read while we write them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
from pathlib import Path
from typing import Any

from qwen_fp8_ops.errors import OpsError

MOVE_THE_RUN = ", or move the run with QWEN_FP8_HOME=/other/folder."


def write_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace ``path`` in one step: a reader sees the old text or the new one, never half of it.

    Raises:
        OpsError: the folder refuses the write (full, read-only, gone); the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise write_error(path, error) from error


def remove_torn(folder: Path) -> None:
    """Remove what ``write_text`` left there of writers that were killed."""
    for path in folder.glob(".*"):
        pid = path.name.rpartition(".")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with contextlib.suppress(OSError):
                path.unlink()


def write_json(path: Path, value: Any, *, mode: int = 0o644) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n", mode=mode)


def append_json(path: Path, value: Any) -> None:
    """Add one line; a single write, so that lines of several writers do not mix.

    Raises:
        OpsError: the folder refuses the write.
    """
    line = json.dumps(value, ensure_ascii=False).encode() + b"\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # the last bytes of the disk took a part of it
        finally:
            os.close(descriptor)
    except OSError as error:
        raise write_error(path, error) from error


def read_json(path: Path) -> Any | None:
    """The file's value; None when there is no such file.

    Raises:
        OpsError: it is there but cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise OpsError(f"{path} is damaged: {error}", code="damaged-file", fix=f"Move it away: {move_away(path)}") from error
    except OSError as error:
        raise OpsError(f"{path} cannot be read: {error.strerror}", code="unreadable-file") from error


def make_folder(path: Path) -> None:
    """
    Raises:
        OpsError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error


def move_away(path: Path) -> str:
    """The command that does it; the path may hold quotes."""
    return shlex.join(["mv", str(path), f"{path}.damaged"])


def write_error(path: Path, error: OSError) -> OpsError:
    folder = shlex.quote(str(path.parent))
    return OpsError(
        f"Cannot write {path}: {error.strerror}",
        code="cannot-write",
        fix=f"Check space and rights (`df -h {folder}`, `ls -ld {folder}`){MOVE_THE_RUN}",
    )
