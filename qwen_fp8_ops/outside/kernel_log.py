"""The kernel's log of this host. A GPU's Xid errors and the out-of-memory killer's choice are told nowhere else.

Many sites keep it from users (``kernel.dmesg_restrict=1``); the journal may still show it to the groups ``adm`` and ``systemd-journal``.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

XID = r"NVRM: Xid"
OUT_OF_MEMORY = r"oom-kill:|[Oo]ut of memory|Killed process \d+|oom_reaper"

COMMANDS = (
    ("dmesg", "--time-format=iso"),
    ("dmesg",),  # of busybox, and of util-linux before 2.24: seconds since the boot
    ("journalctl", "--dmesg", "--boot", "--lines=20000", "--no-pager", "--quiet", "--output=short-iso"),
)
TIMEOUT_SECONDS = 5.0
"""For each command. A hanging one is no reason to keep a diagnosis waiting."""


@dataclass(frozen=True)
class KernelLog:
    """``problem`` says why there are no lines; empty where the log was read."""

    lines: tuple[str, ...] = ()
    problem: str = ""


def lines(pattern: str) -> list[str]:
    """The lines in which the regular expression is found, oldest first; none as well where the log cannot be read (``read`` tells)."""
    wanted = re.compile(pattern)
    return [line for line in read().lines if wanted.search(line)]


def read() -> KernelLog:
    """Everything that is still in the kernel's buffer, oldest first. As `dmesg`, else as `journalctl --dmesg --boot`."""
    problems: list[str] = []
    for argv in COMMANDS:
        try:
            done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_SECONDS, stdin=subprocess.DEVNULL, check=False)
        except subprocess.TimeoutExpired:
            problems.append(f"{argv[0]} gave no answer in {TIMEOUT_SECONDS:g} s")
            continue
        except OSError as error:
            problems.append(f"{argv[0]}: {error.strerror}")
            continue
        if done.returncode == 0 and done.stdout.strip():
            return KernelLog(tuple(done.stdout.splitlines()))
        said = done.stderr.strip().splitlines()
        problems.append(said[-1] if said else f"{argv[0]} shows nothing (exit code {done.returncode})")
    return KernelLog(problem="; ".join(dict.fromkeys(problems)))
