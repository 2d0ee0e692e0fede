"""One file of keys that may change while we serve: what it last said well stays in force until it says something else well."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.gate.keys import read_keys

SETTLE_SECONDS = 0.5
"""A file that is written in place is empty, then half of itself, before it is whole: it is read once it has kept still so long.
One that was put in its place by a rename is whole, and read at once; not so an empty one, for some editors move the old file away,
make a new one and then write to that."""

logger = logging.getLogger("qwen_fp8_ops.gate")

Stamp = tuple[int, int, int, int]


class KeysFile:
    """``keys`` by name, as the file last said them; empty until it could be read. ``own``: the supervisor writes it."""

    def __init__(self, path: Path, *, own: bool = False) -> None:
        self.path = path
        self._own = own
        self.keys: dict[str, str] = {}
        self._read: Stamp | None | str = "never"
        self._seen: Stamp | None | str = "never"
        self._seen_at = 0.0

    def look(self, now: float) -> bool:
        """Read the file if it is another one than was read; True when the keys are other ones than before.

        A file that cannot be read, is open to others or has a bad line is told of once, and changes nothing: a slip of an
        editor must not lock out who was let in. Emptying it is no slip: then no key in it opens any more.

        Args:
            now: monotonic seconds.
        """
        found = stamp(self.path)
        if found != self._seen:
            self._seen, self._seen_at = found, now
        if found == self._read or not (self._is_new(found) or now - self._seen_at >= SETTLE_SECONDS):
            return False
        # The stamp was taken before the file is read, so a change in between is seen at the next look.
        self._read = found
        try:
            keys = read_keys(self.path, own=self._own)
        except OpsError as error:
            left = f"the {len(self.keys)} read before stay in force" if self.keys else "no key in it opens"
            logger.warning("%s; %s. %s", error.message, left, error.fix)
            return False
        changed, self.keys = keys != self.keys, keys
        if changed:
            logger.info("Keys read from %s: %d", self.path, len(keys))
        return changed

    def _is_new(self, found: Stamp | None) -> bool:
        """Another file than the one that was read, and not the same one rewritten? Also true at first, and of one that was not there."""
        if self._read == "never":
            return True
        if found is None:
            return False
        inode, _, _, size = found
        return size > 0 and (self._read is None or inode != self._read[0])


def stamp(path: Path) -> Stamp | None:
    """Another one when the file was replaced, written, or had its mode changed (hence ctime); None when there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
