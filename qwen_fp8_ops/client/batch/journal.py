"""The file that a run cannot do without: every answer is in it the moment it came, and stays, whatever happens to the process.

Written by one process at a time. Each outcome is one ``write``; once a second what is written is made safe against a crash of the
machine as well. A kill at any moment leaves whole lines and at most one torn one, which the next writer cuts off.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from qwen_fp8_ops.client.batch.item import Outcome, Recipe
from qwen_fp8_ops.client.batch.records import SCHEMA, Records
from qwen_fp8_ops.errors import ConfigError, OpsError
from qwen_fp8_ops.outside import lock, process
from qwen_fp8_ops.outside.files import make_folder, write_error

LONGEST_VALUE = 120


class Journal(Records):
    """
    Args:
        overwrite: forget what is in it.

    Raises:
        OpsError: another process writes it (code ``journal-in-use``); the folder refuses it; what is there is no journal.
        ConfigError: it was begun with another recipe (code ``other-recipe``); the message says what differs.
    """

    def __init__(self, path: Path, recipe: Recipe, *, overwrite: bool = False) -> None:
        self.recipe = recipe
        self._lock = lock_of(path)
        self._dirty = False
        self._overwrite = overwrite
        make_folder(path.parent)
        self._me = _me()
        other = lock.acquire(self._lock, self._me)
        if other is not None and _was_us(other, self._me):
            lock.release(self._lock, other)
            other = lock.acquire(self._lock, self._me)
        if other is not None:
            raise _in_use(path, self._lock, other)
        with ExitStack() as undo:
            undo.callback(lock.release, self._lock, self._me)
            super().__init__(path)
            undo.callback(super().close)
            self._begin()
            undo.pop_all()

    def _open(self) -> int:
        forget = os.O_TRUNC if self._overwrite else 0
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | forget, 0o644)

    def _begin(self) -> None:
        try:
            if self.head is None:
                os.ftruncate(self._descriptor, 0)
                self._write({"schema": SCHEMA, "recipe": self.head_recipe})
            elif self.head["recipe"] != self.head_recipe:
                raise _other_recipe(self.path, self.head["recipe"], self.recipe)
            else:
                os.ftruncate(self._descriptor, self.end)
            self.sync()
        except OSError as error:
            raise write_error(self.path, error) from error

    @property
    def head_recipe(self) -> dict[str, Any]:
        """Our recipe as the first line tells it."""
        value: dict[str, Any] = json.loads(json.dumps(self.recipe.as_json()))
        return value

    def append(self, outcome: Outcome) -> None:
        """
        Raises:
            OpsError: the disk refuses it.
        """
        try:
            self._offsets[hash(outcome.id)] = self._write(outcome.as_json())
        except OSError as error:
            raise write_error(self.path, error) from error

    def _write(self, value: dict[str, Any]) -> int:
        """Returns where the line begins."""
        # An answer may hold half a surrogate pair, which is no Unicode; json reads back what is written so.
        line = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        self._dirty = True
        if os.write(self._descriptor, line) < len(line):
            os.ftruncate(self._descriptor, self.end)  # or the next line, if there is room for it, would continue this one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        offset, self.end = self.end, self.end + len(line)
        return offset

    def sync(self) -> None:
        """Make what is written safe against a crash of the machine; does nothing when it is.

        Raises:
            OpsError: the disk refuses it.
        """
        if not self._dirty:
            return
        self._dirty = False
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise write_error(self.path, error) from error

    def close(self) -> None:
        try:
            self.sync()
        finally:
            super().close()
            lock.release(self._lock, self._me)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def lock_of(path: Path) -> Path:
    """The file that is there while somebody writes the journal at ``path``."""
    return path.with_name(f".{path.name}.lock")


def _me() -> process.Identity:
    me = process.identify(os.getpid(), os.environ.get("SLURM_JOB_ID"))
    assert me is not None  # a process that asks is there
    return me


def _was_us(other: process.Identity, me: process.Identity) -> bool:
    """SLURM starts a job again, with its old id, on another node when the first one failed; nobody is left there to write."""
    started_again = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    return started_again and not other.here and me.job_id is not None and other.job_id == me.job_id


def _in_use(path: Path, lock_path: Path, other: process.Identity) -> OpsError:
    if other.here:
        return OpsError(f"Process {other.pid} writes {path} just now", code="journal-in-use", fix="Wait for it, or give another --output-dir.")
    job = f", job {other.job_id}" if other.job_id else ""
    return OpsError(
        f"A process of {other.host} (pid {other.pid}{job}) writes {path}, or died there",
        code="journal-in-use",
        fix=f"If it is not running any more: {shlex.join(['rm', str(lock_path)])}",
    )


def _other_recipe(path: Path, before: dict[str, Any], now: Recipe) -> ConfigError:
    old = Recipe.from_json(before).flat()
    new = now.flat()
    lines = [f"    {name}: {_shown(old.get(name))} -> {_shown(new.get(name))}" for name in dict.fromkeys((*old, *new)) if old.get(name) != new.get(name)]
    return ConfigError(
        f"{path} was begun with other settings than these:\n" + "\n".join(lines),
        code="other-recipe",
        fix="Give the settings it was begun with to go on,\nor --overwrite to do everything again,\nor another --output-dir or --name to keep both.",
    )


def _shown(value: Any) -> str:
    text = "(none)" if value is None else repr(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."
