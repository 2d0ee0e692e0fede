"""SLURM's commands as programs of our own, for what a real cluster does not do on demand."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

RECORDED = Path(__file__).parent.parent / "fixtures" / "slurm"


class Commands:
    """The only folder on PATH beside nothing; each command notes how it was called."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setenv("PATH", str(folder))

    def make(self, name: str, does: str) -> None:
        # By absolute paths: nothing else is on PATH.
        note = f'echo {shlex.quote(name)} "$*" >> {shlex.quote(str(self.folder / "asked"))}'
        (self.folder / name).write_text(f"#!/bin/sh\n{note}\n{does}\n")
        (self.folder / name).chmod(0o755)

    def tell(self, name: str, text: str) -> None:
        (self.folder / f"{name}.out").write_text(text)
        self.make(name, f"/bin/cat {shlex.quote(str(self.folder / f'{name}.out'))}")

    def refuse(self, name: str, text: str) -> None:
        self.make(name, f"echo {shlex.quote(text)} >&2; exit 1")

    @property
    def asked(self) -> list[str]:
        note = self.folder / "asked"
        return note.read_text().splitlines() if note.exists() else []


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text()


def recorded_environ(name: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in recorded(name).splitlines())
