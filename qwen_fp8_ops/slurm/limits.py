"""The site's time limits."""

from __future__ import annotations

import re

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.slurm.ask import ask

KILL_WAIT_SECONDS = 30
"""SLURM's own default."""


def kill_wait_seconds() -> int:
    """From SLURM's SIGTERM to its SIGKILL; the default where the controller does not tell."""
    try:
        found = re.search(r"^KillWait\s*=\s*(\d+) sec", ask(["scontrol", "show", "config"]), re.MULTILINE | re.ASCII)
    except OpsError:
        return KILL_WAIT_SECONDS
    return int(found[1]) if found else KILL_WAIT_SECONDS
