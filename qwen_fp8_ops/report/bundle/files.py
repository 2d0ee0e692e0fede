"""The run's own files in a bundle: what it recorded as it stands, damaged or not, and the end of each log. Never the keys."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from qwen_fp8_ops.outside import clock
from qwen_fp8_ops.report.bundle.case import Case, Member

MOST_BYTES = 8 << 20
"""Of one file, from its end."""
RECORDS = (".json", ".jsonl", ".sbatch")
"""What the service keeps in run/; a file of another kind is somebody else's, and stays there."""
MOST_LOGS = 100
"""The newest ones: every job of SLURM leaves a log."""


def record_members(case: Case) -> Iterator[Member]:
    """
    Raises:
        OSError: the folder cannot be listed.
    """
    folder = case.paths.run
    if not os.path.lexists(folder):
        return
    for path in sorted(folder.iterdir()):
        if path != case.paths.keys and (path.suffix in RECORDS or path == case.paths.lock):
            yield end_of(path, f"run/{path.name}", lines=case.last_lines if path.suffix == ".jsonl" else None)


def log_members(case: Case) -> Iterator[Member]:
    """
    Raises:
        OSError: the folder cannot be listed.
    """
    folder = case.paths.logs
    if not os.path.lexists(folder):
        return
    found = sorted((path for path in folder.iterdir() if not path.is_dir()), key=_newest_first)
    for path in found[:MOST_LOGS]:
        yield end_of(path, f"logs/{path.name}", lines=case.last_lines)
    if len(found) > MOST_LOGS:
        left = "\n".join(path.name for path in found[MOST_LOGS:])
        yield Member("logs/LEFT_OUT.txt", f"Older than the {MOST_LOGS} newest:\n{left}\n", f"{len(found) - MOST_LOGS} older logs are left out")


def listing_members(case: Case) -> Iterator[Member]:
    """Size, mode, owner and age of what there is, as `ls -lA` shows them: a wrong owner or an empty log is often the cause."""
    lines = []
    for folder in (case.paths.home, case.paths.run, case.paths.logs):
        lines.append(f"{folder}:")
        try:
            lines += [_listed(path) for path in sorted(folder.iterdir())]
        except OSError as error:
            lines.append(f"  cannot be listed: {error.strerror}")
    yield Member("files.txt", "\n".join(lines) + "\n")


def end_of(path: Path, name: str, *, lines: int | None) -> Member:
    """The last lines of a file; all of them with None. A line that was cut in two at the beginning is left out, for half of a secret is
    not known as one."""
    try:
        # O_NONBLOCK: a pipe would have us wait for its writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return Member(name, "It is no plain file.\n", f"{path} is no plain file")
            start = max(0, status.st_size - MOST_BYTES)
            file.seek(start)
            text = file.read(MOST_BYTES).decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        return Member(name, f"It cannot be read: {error.strerror}\n", f"{path} cannot be read: {error.strerror}")
    found = text.split("\n")[1 if start else 0 :]
    if lines is not None and len(found) > lines + 1:
        found = found[-lines - 1 :]  # after the last line break comes an empty one
    return Member(name, "\n".join(found))


def _newest_first(path: Path) -> tuple[float, str]:
    try:
        return -path.lstat().st_mtime, path.name
    except OSError:
        return 0.0, path.name


def _listed(path: Path) -> str:
    try:
        found = path.lstat()
    except OSError as error:
        return f"  {path.name}: {error.strerror}"
    target = f" -> {os.readlink(path)}" if stat.S_ISLNK(found.st_mode) else ""
    return f"  {stat.filemode(found.st_mode)} {found.st_uid:>6} {found.st_size:>14} {clock.iso(found.st_mtime)} {path.name}{target}"
