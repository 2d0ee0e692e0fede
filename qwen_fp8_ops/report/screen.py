"""What a terminal can show: how wide it is, and whether it has more than ASCII."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TextIO

NARROWEST, WIDEST = 60, 160


@dataclass(frozen=True)
class Screen:
    width: int = 100
    unicode: bool = True

    @classmethod
    def of(cls, stream: TextIO) -> Screen:
        """Of the terminal, or of COLUMNS where the output goes to a file."""
        columns = shutil.get_terminal_size((cls.width, 24)).columns
        return cls(min(WIDEST, max(NARROWEST, columns)), (stream.encoding or "ascii").lower().replace("-", "").startswith("utf"))
