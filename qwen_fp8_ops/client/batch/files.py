"""The one object that knows every file of a batch's result.

folder/
├── STEM.json (or .jsonl, .parquet)       what people asked for
├── STEM.problems.jsonl                   failed, truncated and empty ones; absent when there are none
├── STEM.summary.json                     the numbers of the latest run
├── STEM.journal.jsonl                    every answer as it came; what a later run goes on from
└── STEM.shard-2-of-4.journal.jsonl ...   the same of one share, until they are merged
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from qwen_fp8_ops.client.batch.inputs import Shard

SHARD_JOURNAL = re.compile(r"\.shard-([0-9]+)-of-([0-9]+)\.journal\.jsonl")
UNSAFE = re.compile(r"[^\w.+@=-]+")
LONGEST_NAME_BYTES = 100


@dataclass(frozen=True)
class ResultFiles:
    folder: Path
    stem: str
    shard: Shard | None = None

    def result(self, ending: str) -> Path:
        """``ending`` with what stands before it, such as ``.json`` or ``_metrics.json``."""
        share = f".shard-{self.shard.number}-of-{self.shard.of}" if self.shard else ""
        return self.folder / f"{self.stem}{share}{ending}"

    @property
    def journal(self) -> Path:
        return self.result(".journal.jsonl")

    @property
    def problems(self) -> Path:
        return self.result(".problems.jsonl")

    @property
    def summary(self) -> Path:
        return self.result(".summary.json")

    def shard_journals(self) -> dict[Shard, Path]:
        """Those that are there, in order."""
        found = {}
        for path in self.folder.glob("*.journal.jsonl") if self.folder.is_dir() else ():
            match = SHARD_JOURNAL.fullmatch(path.name.removeprefix(self.stem)) if path.name.startswith(self.stem) else None
            if match:
                found[Shard(int(match[1]), int(match[2]))] = path
        return dict(sorted(found.items(), key=lambda pair: (pair[0].of, pair[0].number)))


def safe_name(text: str) -> str:
    """A file's name for a model's: ``Qwen/Qwen3-VL-4B`` becomes ``Qwen3-VL-4B``."""
    name = UNSAFE.sub("_", text.rstrip("/").rpartition("/")[2]).lstrip(".")
    # Two such names, a share and the ending of a lock must fit into the 255 bytes of a file's name.
    return name.encode()[:LONGEST_NAME_BYTES].decode("utf-8", "ignore") or "model"
