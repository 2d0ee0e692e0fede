"""SLURM's commands, as argv lists with a time limit."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TIMEOUT_SECONDS = 20
"""Clients wait 9 s for a controller that is gone, 10 s for one that is silent, before they say so in their own words."""


@dataclass(frozen=True)
class Reply:
    """``returncode`` is None when the command is missing or gave no answer in time; ``problem`` says which."""

    returncode: int | None
    stdout: str
    problem: str = ""

    @property
    def ok(self) -> bool:
        return self.returncode == 0


def installed() -> bool:
    return shutil.which("scontrol") is not None


def run(argv: Sequence[str], *, timeout: float = TIMEOUT_SECONDS, environ: Mapping[str, str] | None = None) -> Reply:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=timeout, stdin=subprocess.DEVNULL, check=False, env=environ)
    except FileNotFoundError:
        return Reply(None, "", f"{argv[0]} is not installed here")
    except OSError as error:
        return Reply(None, "", f"{argv[0]} cannot be run: {error.strerror}")
    except subprocess.TimeoutExpired:
        return Reply(None, "", f"{argv[0]} gave no answer in {timeout:g} s")
    return Reply(done.returncode, done.stdout, done.stderr.strip())
