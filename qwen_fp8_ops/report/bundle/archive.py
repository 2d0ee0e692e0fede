"""From parts to one file: gathered, masked, packed, readable by its owner alone, there as a whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import stat
import tarfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import process
from qwen_fp8_ops.report.bundle.case import Case, Member
from qwen_fp8_ops.report.bundle.mask import Mask
from qwen_fp8_ops.report.bundle.parts import PARTS
from qwen_fp8_ops.report.bundle.readme import readme
from qwen_fp8_ops.report.bundle.secrets import known_secrets

LONGEST_LINE = 16_384
"""Characters; of a longer line the rest is left out, after it was masked."""


@dataclass(frozen=True)
class Bundle:
    """What was written. ``problems``: what could not be had. ``masked``: how many secrets of each kind were taken out."""

    file: Path
    size_bytes: int
    members: tuple[str, ...]
    problems: tuple[str, ...]
    masked: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        return {"schema": 1, "ok": True, **asdict(self), "file": str(self.file)}


def write_bundle(case: Case, output: Path | None) -> Bundle:
    """
    Args:
        output: the file, or a folder to put it in; None is the current folder.

    Raises:
        OpsError: it cannot be written there; nothing is left behind.
    """
    name = f"qwen-fp8-support-{process.host_name()}-{time.strftime('%Y%m%d-%H%M%S')}"
    file = _target(output or case.folder, name)
    mask = Mask(known_secrets(case))
    gathered = [member for part in PARTS for member in part.members(case)]
    members = [Member(member.name, _shortened(mask.text(member.text))) for member in gathered]
    problems = tuple(mask.text(member.problem) for member in gathered if member.problem)
    counts = {what: count for what, count in mask.counts.items() if count}
    members.insert(0, Member("README.txt", readme(case, problems, counts)))
    _write(file, name, members)
    return Bundle(file, file.stat().st_size, tuple(member.name for member in members), problems, counts)


def _target(asked: Path, name: str) -> Path:
    """
    Raises:
        OpsError: something else than a file is there.
    """
    if asked.is_dir():
        return asked / f"{name}.tar.gz"
    if os.path.lexists(asked) and not stat.S_ISREG(asked.lstat().st_mode):
        raise OpsError(f"{asked} is no plain file, so it is not replaced", code="cannot-write", fix="Name a new file: --output FILE.tar.gz")
    return asked


def _shortened(text: str) -> str:
    if len(text) <= LONGEST_LINE:
        return text
    return "\n".join(line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} ... ({len(line) - LONGEST_LINE} more)" for line in text.split("\n"))


def _write(file: Path, folder: str, members: Iterable[Member]) -> None:
    """
    Raises:
        OpsError: the disk or the folder refuses it.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    now = int(time.time())
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as raw:
            with tarfile.open(fileobj=raw, mode="w:gz") as archive:
                for member in members:
                    data = member.text.encode(errors="replace")
                    entry = tarfile.TarInfo(f"{folder}/{member.name}")
                    entry.size, entry.mode, entry.mtime = len(data), 0o600, now
                    archive.addfile(entry, io.BytesIO(data))
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(temporary, file)
    except OSError as error:
        where = shlex.quote(str(file.parent))
        raise OpsError(
            f"Cannot write {file}: {error.strerror}",
            code="cannot-write",
            fix=f"Check space and rights (df -h {where}), or name another place: --output FILE.tar.gz",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
