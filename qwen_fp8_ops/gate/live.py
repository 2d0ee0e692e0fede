"""The rules in force now: the configuration and the keys, read again when their files change."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.gate.config import GateConfig, read_config
from qwen_fp8_ops.gate.keys import KeyRing, read_keys

LOOK_SECONDS = 0.1
"""Files are looked at as often as this at most, when a request arrives: a handful of stat calls, whatever the load."""

logger = logging.getLogger("qwen_fp8_ops.gate")

Stamp = tuple[int, int, int, int]


class Watched:
    """Notices that a file was replaced, written, or had its mode changed (hence ctime)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: Stamp | None | str = "never"

    def changed(self) -> bool:
        """Is it another file than at the last call? True the first time.

        The stamp is taken before the owner reads, so a change in between is seen at the next call.
        """
        before, self._seen = self._seen, stamp(self.path)
        return before != self._seen


class LiveRules:
    """``config`` and ``keys``, as of the latest look.

    Raises:
        OpsError: the configuration cannot be read at first. Later a bad one is logged and the last good one stays in force.
    """

    def __init__(self, path: Path) -> None:
        self._file = Watched(path)
        self._file.changed()
        self.config: GateConfig = read_config(path)
        self.keys = KeyRing({})
        self._keys_files: list[Watched] = []
        self._due = 0.0
        self._look_at_keys()

    def refresh(self, now: float, *, at_once: bool = False) -> bool:
        """Look at the files when it is time to (or ``at_once``); True when the configuration is another one.

        Args:
            now: monotonic seconds.
        """
        if now < self._due and not at_once:
            return False
        self._due = now + LOOK_SECONDS
        renewed = self._file.changed() and self._read()
        self._look_at_keys()
        return renewed

    def _read(self) -> bool:
        try:
            self.config = read_config(self._file.path)
        except OpsError as error:
            logger.error("%s; the gate keeps the rules it had", error.message)
            return False
        return True

    def _look_at_keys(self) -> None:
        wanted = [Path(path) for path in self.config.keys_files]
        moved = [file.path for file in self._keys_files] != wanted
        if moved:
            self._keys_files = [Watched(path) for path in wanted]
        changed = [file.changed() for file in self._keys_files]
        if not moved and not any(changed):
            return
        accepted: dict[str, str] = {}
        for path in wanted:
            try:
                accepted.update({key: name for name, key in read_keys(path).items()})
            except OpsError as error:
                logger.error("%s; no key in it is accepted. %s", error.message, error.fix)
        self.keys = KeyRing(accepted)


def stamp(path: Path) -> Stamp | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
