"""The outcome of the suite as a table: one row for each fault that was tried."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.faults.load import Load


@dataclass
class Row:
    """``ended``: what became of the service. ``lost`` were taken and got an error instead of an answer; ``silent`` got nothing, or half
    of an answer as if it were whole. ``seconds``: from the fault to the next answer; ``ratio``: that over a plain start.
    """

    kind: str
    fault: str
    ended: str = ""
    survived: bool = False
    answered: int | None = None
    lost: int | None = None
    silent: int | None = None
    seconds: float | None = None
    ratio: float | None = None

    def count(self, load: Load) -> None:
        self.answered, self.lost, self.silent = load.whole, load.told, load.silent

    def recovered(self, seconds: float, plain: float | None) -> None:
        self.seconds, self.ratio = round(seconds, 1), round(seconds / plain, 2) if plain else None


HEAD = ("fault", "survived", "ended", "answered", "lost", "silent", "seconds", "of a plain start")


def render(rows: Iterable[Row]) -> str:
    """Markdown, a table for each kind."""
    rows = sorted(rows, key=lambda row: (row.kind, row.fault))  # several workers end in any order
    survived = sum(row.survived for row in rows)
    lines = [
        f"{len(rows)} faults tried, {survived} survived; {_sum(rows, 'answered')} requests answered whole, "
        f"{_sum(rows, 'lost')} lost with an error, {_sum(rows, 'silent')} lost in silence."
    ]
    for kind in dict.fromkeys(row.kind for row in rows):
        lines += ["", f"### {kind}", "", f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}"]
        for row in rows:
            if row.kind == kind:
                cells = (row.fault, "yes" if row.survived else "NO", row.ended, *map(_shown, (row.answered, row.lost, row.silent, row.seconds, row.ratio)))
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write(rows: Iterable[Row], folder: Path) -> tuple[Path, Path]:
    """faults.md for people, faults.json for programs."""
    rows = list(rows)
    folder.mkdir(parents=True, exist_ok=True)
    text, data = folder / "faults.md", folder / "faults.json"
    text.write_text(render(rows))
    data.write_text(json.dumps({"schema": 1, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    return text, data


def _sum(rows: Iterable[Row], name: str) -> int:
    return sum(getattr(row, name) or 0 for row in rows)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:,}"
