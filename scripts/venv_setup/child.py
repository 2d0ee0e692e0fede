"""Run one program, pass on what it prints, and end it when we end."""

from __future__ import annotations

import ctypes
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h
GRACE_SECONDS = 10


@dataclass(frozen=True)
class Outcome:
    returncode: int
    output: str

    @property
    def ok(self) -> bool:
        return self.returncode == 0


def run(argv: Sequence[str], *, cwd: Path, environ: Mapping[str, str], on_line: Callable[[str], None]) -> Outcome:
    """Run to the end; every line of stdout and stderr goes to ``on_line`` as it comes.

    There is no time limit: a download takes what the network takes, and pip has limits of its own for a silent one.

    Raises:
        OSError: the program cannot be started.
    """
    lines: list[str] = []
    with (
        subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - unsafe beside threads; there are none
        ) as process,
        ExitStack() as undo,
    ):
        undo.callback(_end, process)
        for line in process.stdout or ():
            lines.append(line)
            on_line(line.rstrip("\n"))
        process.wait()
        undo.pop_all()
    return Outcome(process.returncode, "".join(lines))


def _die_with_parent() -> None:
    # Killed with -9 we could not end pip ourselves, and the next set-up would run beside it in the same folder.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
