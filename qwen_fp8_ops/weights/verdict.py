"""What a look at a model folder found: one entry for each file that is not as it should be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qwen_fp8_ops.weights.hashing import Digest

Kind = Literal["broken", "missing", "unreadable", "stale", "extra"]
"""``stale``: changed since it was hashed, perhaps only its time. ``extra``: no part of this checkpoint."""

Reference = Literal["manifest", "hub", "recipe", "nothing"]
"""Whose hashes the files were compared with; ``recipe`` is that of a checkpoint made on this machine."""

SCHEMA = 1


@dataclass(frozen=True)
class Bad:
    """``file`` is its name in the folder; ``problem`` continues a sentence that begins with it; ``fix`` is the next command."""

    file: str
    problem: str
    fix: str
    kind: Kind

    def __str__(self) -> str:
        return f"{self.file} {self.problem}"

    def as_json(self) -> dict[str, str]:
        return {"file": self.file, "problem": self.problem, "fix": self.fix}


@dataclass(frozen=True)
class Verdict:
    """``files`` and ``size_bytes`` count what was looked at. ``digests`` are those of its content; None when no content was read."""

    folder: Path
    files: int
    size_bytes: int
    bad: tuple[Bad, ...]
    digests: Mapping[str, Digest] | None = None
    compared_with: Reference = "nothing"
    notes: tuple[str, ...] = ()

    @property
    def hashed(self) -> bool:
        return self.digests is not None

    @property
    def ok(self) -> bool:
        return not self.bad

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "ok": self.ok,
            "path": str(self.folder),
            "files": self.files,
            "bytes": self.size_bytes,
            "hashed": self.hashed,
            "compared_with": self.compared_with if self.hashed else None,
            "bad": [bad.as_json() for bad in self.bad],
            "notes": list(self.notes),
        }


class Found:
    """Gathers while the folder is looked at. The first problem of a file is kept: checks run from the most telling to the least."""

    def __init__(self, folder: Path, fix: str) -> None:
        self.folder = folder
        self.sizes: dict[str, int] = {}
        self._fix = fix
        self._bad: dict[str, Bad] = {}

    def bad(self, file: str, problem: str, kind: Kind = "broken", *, fix: str = "") -> None:
        self._bad.setdefault(file, Bad(file, problem, fix or self._fix, kind))

    def drop(self, file: str) -> None:
        """Take back what was said of a file that is fine after all."""
        self._bad.pop(file, None)

    def is_bad(self, file: str) -> bool:
        return file in self._bad

    @property
    def any_bad(self) -> bool:
        return bool(self._bad)

    def kind(self, file: str) -> Kind | None:
        """None for a file of which nothing bad was found."""
        return self._bad[file].kind if file in self._bad else None

    def of_kind(self, kinds: Iterable[Kind]) -> list[str]:
        wanted = set(kinds)
        return [bad.file for bad in self._bad.values() if bad.kind in wanted]

    def verdict(self, digests: Mapping[str, Digest] | None = None, compared_with: Reference = "nothing", notes: tuple[str, ...] = ()) -> Verdict:
        bad = tuple(self._bad[name] for name in sorted(self._bad))
        return Verdict(self.folder, len(self.sizes), sum(self.sizes.values()), bad, digests, compared_with, notes)
