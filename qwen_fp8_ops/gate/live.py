"""The rules in force now: the configuration and the keys, read again when their files change."""

from __future__ import annotations

import logging
from pathlib import Path

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.gate.config import GateConfig, read_config
from qwen_fp8_ops.gate.keys import KeyRing
from qwen_fp8_ops.gate.keys_file import KeysFile, Stamp, stamp

LOOK_SECONDS = 0.1
KEYS_LOOK_SECONDS = 1.0
"""Files are looked at as often as this at most, when a request arrives: a handful of stat calls, whatever the load. The
configuration says when to drain and is waited for; keys lie on a file system that may be slow."""

logger = logging.getLogger("qwen_fp8_ops.gate")


class LiveConfig:
    """``config``, as of the latest look.

    Raises:
        OpsError: it cannot be read at first. Later a bad one is logged once and the last good one stays in force.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: Stamp | None = stamp(path)
        self.config: GateConfig = read_config(path)

    def refresh(self) -> bool:
        """Read the file if it is another one; True when that gave a configuration."""
        # The stamp is taken before the file is read, so a change in between is seen at the next look.
        before, self._seen = self._seen, stamp(self._path)
        if self._seen == before:
            return False
        try:
            self.config = read_config(self._path)
        except OpsError as error:
            logger.error("%s; the gate keeps the rules it had", error.message)
            return False
        return True


class LiveRules:
    """``config`` and ``keys``, as of the latest look.

    Raises:
        OpsError: as ``LiveConfig``.
    """

    def __init__(self, path: Path) -> None:
        self._live = LiveConfig(path)
        self.keys = KeyRing({})
        self._keys_files: list[KeysFile] = []
        self._due = self._keys_due = 0.0
        self._look_at_keys(0.0)

    @property
    def config(self) -> GateConfig:
        return self._live.config

    def refresh(self, now: float, *, at_once: bool = False) -> bool:
        """Look at the files when it is time to (or ``at_once``); True when the configuration is another one.

        Args:
            now: monotonic seconds.
        """
        if now < self._due and not at_once:
            return False
        self._due = now + LOOK_SECONDS
        renewed = self._live.refresh()
        if renewed or at_once or now >= self._keys_due:
            self._look_at_keys(now)
        return renewed

    def _look_at_keys(self, now: float) -> None:
        self._keys_due = now + KEYS_LOOK_SECONDS
        wanted = [Path(path) for path in self.config.keys_files]
        moved = [file.path for file in self._keys_files] != wanted
        if moved:
            known = {file.path: file for file in self._keys_files}
            self._keys_files = [known.get(path) or KeysFile(path, own=not number) for number, path in enumerate(wanted)]
        changed = [file.look(now) for file in self._keys_files]
        if moved or any(changed):
            self.keys = KeyRing({key: name for file in self._keys_files for name, key in file.keys.items()})
