"""Where a hung program hangs: the stacks of all its processes, written down before they are ended.

    py-spy, where it is installed and allowed        the Python stacks, from outside
    the stack signal, where the program answers it   the same, written by the process itself into its log; we copy them from there
    /proc, always                                    what the kernel says: state, and what each thread waits for

A process that SIGSTOP holds, or that hangs in a driver, writes nothing itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from qwen_fp8_ops.engine.stack_signal import STACK_SIGNAL
from qwen_fp8_ops.outside import clock, process
from qwen_fp8_ops.outside.files import write_error
from qwen_fp8_ops.outside.process import Identity
from qwen_fp8_ops.service import log_files
from qwen_fp8_ops.service.ladder import Pause

MOST_SECONDS = 15.0
"""For all processes together: they are asked at the same time, and the restart waits for this."""
SIGNAL_SECONDS = 2.0
MOST_LOG_BYTES = 1 << 20


@dataclass(frozen=True)
class Spy:
    """py-spy on its way; it prints into a file in memory (memfd), which unlike a pipe never makes it wait."""

    popen: subprocess.Popen[bytes]
    output: int

    def end(self) -> str:
        self.popen.kill()  # of one that has ended this is nothing
        self.popen.wait()
        with open(self.output, "rb") as file:
            file.seek(0)
            return file.read().decode(errors="replace")


@dataclass
class Look:
    """One process that is looked at."""

    member: Identity
    spy: Spy | None
    told: str = ""

    def text(self) -> str:
        head = f"=== pid {self.member.pid}: {process.command_line(self.member.pid)[:200] or '?'}"
        return "\n".join([head, process.kernel_view(self.member.pid), self.told or "(its Python stacks could not be read)", ""])


def dump(members: Iterable[Identity], log: Path, into: Path, pause: Pause) -> None:
    """Write the stacks of these processes to a file; an earlier one becomes ``into``.1.

    Args:
        log: where the program writes.

    Raises:
        OpsError: the file cannot be written.
    """
    looks = [Look(member, _spy(member)) for member in members]
    _listen_to_spies(looks, pause)
    answers = _ask_by_signal([look for look in looks if not look.told], log, pause)
    text = [f"Stacks at {clock.now()}", "", *(look.text() for look in looks)]
    try:
        log_files.rotate(into)
        into.write_text("\n".join([*text, *([f"=== written by the processes themselves\n{answers}"] if answers else [])]))
    except OSError as error:
        raise write_error(into, error) from error


def _spy(member: Identity) -> Spy | None:
    """py-spy from beside our Python or from PATH; None where there is none."""
    beside = Path(sys.executable).with_name("py-spy")
    program = str(beside) if beside.exists() else shutil.which("py-spy")
    if program is None or not member.alive:
        return None
    # It need not stop the process: that hangs, and may be stopped already.
    argv = [program, "dump", "--nonblocking", "--pid", str(member.pid)]
    output = os.memfd_create("py-spy")
    try:
        return Spy(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT), output)
    except OSError:
        os.close(output)
        return None


def _listen_to_spies(looks: list[Look], pause: Pause) -> None:
    deadline = clock.monotonic() + MOST_SECONDS
    spied = [(look, look.spy) for look in looks if look.spy]
    while any(spy.popen.poll() is None for _, spy in spied) and clock.monotonic() < deadline and not pause(0.05):
        pass
    for look, spy in spied:
        text = spy.end()
        # Whoever reaps may have taken the exit code: what it printed tells whether it was allowed to look.
        look.told = text if "Thread" in text else ""


def _ask_by_signal(looks: list[Look], log: Path, pause: Pause) -> str:
    """What the processes added to their log when they were asked to; only those that answer the signal are, the others it would end."""
    asked = [look.member for look in looks if process.catches(look.member.pid, STACK_SIGNAL)]
    if not asked:
        return ""
    begin = log.stat().st_size if log.exists() else 0
    for member in asked:
        process.send(member, STACK_SIGNAL)
    deadline = clock.monotonic() + SIGNAL_SECONDS
    while clock.monotonic() < deadline and not pause(0.1):
        pass  # a process that is stopped or hangs in the kernel never answers
    try:
        with log.open("rb") as file:
            file.seek(begin)
            return file.read(MOST_LOG_BYTES).decode(errors="replace")
    except OSError:
        return ""
