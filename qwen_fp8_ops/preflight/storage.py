"""Folders: can be written, have space, can be read; and a file server's clock."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from qwen_fp8_ops.outside import file_clock
from qwen_fp8_ops.preflight.check import check
from qwen_fp8_ops.preflight.finding import Finding, Level
from qwen_fp8_ops.preflight.subject import Subject

GROUP = "Storage"
MIB = 1 << 20
LOW_DISK_BYTES = 1 << 30
FULL_DISK_BYTES = 16 * MIB
"""Too little for the state of a run and the first log lines."""

SKEW_SECONDS = 5.0


@check(GROUP, {"logs-writable": "logs/ can be written and has space", "run-writable": "run/ can be written and has space"})
def check_folders(subject: Subject) -> Iterator[Finding]:
    for code, folder in (("logs-writable", subject.paths.logs), ("run-writable", subject.paths.run)):
        place = nearest(folder)
        if not is_writable(place):
            yield Finding(code, "fail", f"Cannot write in {folder}", "Make it writable, or move the run with QWEN_FP8_HOME=/other/folder.")
        elif (free := shutil.disk_usage(place).free) < LOW_DISK_BYTES:
            level: Level = "fail" if free < FULL_DISK_BYTES else "warn"
            yield Finding(
                code, level, f"only {free // MIB} MiB free at {folder}", "Free some space, lower LOG_MAX_MB, or move the run with QWEN_FP8_HOME=/other/folder."
            )
        else:
            yield Finding(code, "pass", str(folder))


@check(GROUP, {"media-root": "MEDIA_ROOT is a folder that can be read"})
def check_media_root(subject: Subject) -> Iterator[Finding]:
    root = subject.plan.media_root
    if root.is_dir() and os.access(root, os.R_OK | os.X_OK):
        yield Finding("media-root", "pass", str(root))
    elif root.exists():
        yield Finding("media-root", "fail", f"MEDIA_ROOT {root} is not a folder we can read", "Set MEDIA_ROOT to a readable folder.")
    elif subject.plan.owns_media_root:
        yield Finding("media-root", "pass", f"{root} is made at the start")
    else:
        yield Finding("media-root", "fail", f"MEDIA_ROOT {root} is missing", f"mkdir -p {shlex.quote(str(root))}\nOr set MEDIA_ROOT to a folder that exists.")


@check(GROUP, {"clock-skew": "the file server of run/ and this host agree on the time"})
def check_clock(subject: Subject) -> Iterator[Finding]:
    """Only where the run's folder is there already: a check makes no folders."""
    ahead = file_clock.seconds_ahead(subject.paths.run) if subject.paths.run.is_dir() else None
    if ahead is None:
        return
    if abs(ahead) > SKEW_SECONDS:
        seen = f"Files in {subject.paths.run} are stamped {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this host's clock"
        yield Finding(
            "clock-skew", "warn", seen, "Times of status, events and the end of the job will not agree between hosts. Have the clocks set: chronyc tracking"
        )
    else:
        yield Finding("clock-skew", "pass", "the file system and this host agree")


def nearest(folder: Path) -> Path:
    """The folder, or where it would be made; a link that leads nowhere is there, and in the way."""
    return next(path for path in (folder, *folder.parents) if os.path.lexists(path))


def is_writable(place: Path) -> bool:
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
