"""The file that says what .venv holds: ``.venv/.setup``.

    complete core cpu dev        or: unfinished core dev
    /path/of/the/checkout
    ...pyproject.toml as it was...

It is written last, so that a set-up that was killed never looks complete. ``scripts/python.sh`` compares it with what is there
now, in the shell, which is why it is text and holds the whole of pyproject.toml instead of a checksum.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from venv_setup.project import Project

COMPLETE, UNFINISHED = "complete", "unfinished"


@dataclass(frozen=True)
class Stamp:
    """``extras`` are those that .venv holds; of an unfinished set-up, those that it held before and owes."""

    complete: bool
    extras: tuple[str, ...]
    checkout: str
    pyproject: str

    def satisfies(self, project: Project, extras: tuple[str, ...]) -> bool:
        """Is all of this installed already? A change of pyproject.toml that touches no requirement does not count."""
        if not self.complete or self.checkout != str(project.root) or not set(extras) <= set(self.extras):
            return False
        try:
            then = Project.parse(project.root, self.pyproject)
        except (tomllib.TOMLDecodeError, KeyError):
            return False
        return then.asks(self.extras) == project.asks(self.extras)


def read(venv: Path) -> Stamp | None:
    """What was recorded; None when nothing was, or nothing readable."""
    try:
        head, checkout, pyproject = (venv / ".setup").read_text(encoding="utf-8").split("\n", 2)
    except (FileNotFoundError, ValueError):
        return None
    word, *extras = head.split()
    return Stamp(word == COMPLETE, tuple(extras), checkout, pyproject) if word in (COMPLETE, UNFINISHED) else None


def write(venv: Path, project: Project, extras: tuple[str, ...], *, complete: bool) -> None:
    """Replace the record in one step."""
    temporary = venv / ".setup.new"
    temporary.write_text(f"{' '.join((COMPLETE if complete else UNFINISHED, *extras))}\n{project.root}\n{project.text}", encoding="utf-8")
    os.replace(temporary, venv / ".setup")
