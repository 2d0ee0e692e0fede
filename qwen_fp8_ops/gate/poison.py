"""Requests that are refused because the engine crashed twice while they ran: a file that the supervisor writes and people may edit.

    run/poison.json   {"schema": 1, "crashes": [the latest two, with what ran], "refused": [{"id": ..., "sha256": ..., "until": ...}]}

A request is known by the hash of its body: the same bytes are the same request. Taking a record out of ``refused`` lifts it within a
second; after ``until`` it lapses by itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.gate.keys_file import Stamp, stamp
from qwen_fp8_ops.outside.files import read_json

SCHEMA = 1
LOOK_SECONDS = 0.5

logger = logging.getLogger("qwen_fp8_ops.gate")


@dataclass(frozen=True)
class Refused:
    """One record. ``first`` and ``second`` are when the engine crashed, ``until`` when the record lapses: ISO 8601. ``body_bytes`` is the
    length of the body, ``media`` how many pictures and films it names.
    """

    id: str
    sha256: str
    body_bytes: int
    media: int
    first: str
    second: str
    until: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Refused | None:
        """None when the value is no record."""
        try:
            found = cls(**{name: kind(value[name]) for name, kind in KINDS.items()})
            _ = found.is_over
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        return found

    @property
    def is_over(self) -> bool:
        return datetime.fromisoformat(self.until).timestamp() <= time.time()


KINDS: dict[str, Any] = {"id": str, "sha256": str, "body_bytes": int, "media": int, "first": str, "second": str, "until": str}


def refused_in(value: Any) -> list[Refused]:
    """The records of a poison.json; what is none is passed over."""
    rows = value.get("refused") if isinstance(value, Mapping) else None
    return [record for row in (rows if isinstance(rows, list) else []) if (record := Refused.from_json(row))]


class PoisonList:
    """The records in force, read again when the file changes; a file that cannot be read leaves those that were."""

    def __init__(self) -> None:
        self.path = ""
        self._seen: Stamp | None = None
        self._due = 0.0
        self._by_hash: dict[str, Refused] = {}

    def find(self, sha256: str, now: float) -> Refused | None:
        """
        Args:
            now: monotonic seconds.
        """
        if now >= self._due:
            self._due = now + LOOK_SECONDS
            self._look()
        record = self._by_hash.get(sha256)
        return None if record is None or record.is_over else record

    def _look(self) -> None:
        path = Path(self.path)
        before, self._seen = self._seen, stamp(path)
        if self._seen == before:
            return
        try:
            self._by_hash = {record.sha256: record for record in refused_in(read_json(path))}
        except OpsError as error:
            logger.error("%s; the gate refuses what it refused before", error.message)
