"""Whose a process is."""

from __future__ import annotations

import pwd
from dataclasses import dataclass

from qwen_fp8_ops.outside import process


@dataclass(frozen=True)
class Owner:
    """``command`` is what was typed, or what the process titled itself; empty for a kernel thread."""

    user: str
    command: str


def owner_of(pid: int) -> Owner | None:
    """None when there is no such process here: it is gone, or the pid is of another namespace than ours."""
    try:
        uid = (process.PROC / str(pid)).stat().st_uid
    except OSError:
        return None
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    return Owner(user, process.command_line(pid))
