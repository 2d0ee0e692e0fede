"""Processes of this host, read from /proc, and what may be done to them.

A pid alone names nothing: it is used again. ``Identity`` adds the host, its boot and the moment the process began, so that a
recorded process is either still the same one or gone. Linux only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PROC = Path("/proc")
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
STATE, PARENT, SESSION, START_TICKS = 0, 1, 3, 19  # fields of /proc/PID/stat after the command's name; proc(5)
ENDED = "ZX"  # states of a thread that holds nothing any more: zombie, dead


@dataclass(frozen=True)
class Identity:
    """One process of one boot of one host.

    ``start_ticks`` counts clock ticks from boot to the process's start (field 22 of /proc/PID/stat).
    """

    host: str
    boot_id: str
    pid: int
    start_ticks: int
    job_id: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Identity | None:
        """None when the value is not one of ours: written by a newer version, or damaged."""
        try:
            return cls(str(value["host"]), str(value["boot_id"]), int(value["pid"]), int(value["start_ticks"]), value.get("job_id"))
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
            return None

    @property
    def here(self) -> bool:
        """Is it of this host? Only then may we say whether it lives."""
        return self.host == host_name()

    @property
    def alive(self) -> bool:
        """Does exactly this process still run here? A zombie does not, once the last of its threads has ended."""
        return self.here and self.boot_id == boot_id() and _is_running(self.pid, self.start_ticks)


def host_name() -> str:
    return socket.gethostname()


def boot_id() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int, job_id: str | None = None) -> Identity | None:
    """The identity of a living process; None when there is none of that pid."""
    stat = _stat(pid)
    return Identity(host_name(), boot_id(), pid, int(stat[START_TICKS]), job_id) if stat else None


def _stat(pid: int) -> list[str] | None:
    return _fields(PROC / str(pid))


def _fields(folder: Path) -> list[str] | None:
    """Of the ``stat`` of a process, or of one thread; None when it is gone.

    Raises:
        OSError: it could not be looked at, for want of a file descriptor or memory: that says nothing about it.
    """
    try:
        text = (folder / "stat").read_text(errors="replace")
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        return None
    return text[text.rindex(")") + 2 :].split()


def _is_running(pid: int, start_ticks: int) -> bool:
    stat = _stat(pid)
    return stat is not None and int(stat[START_TICKS]) == start_ticks and _has_living_threads(pid, stat)


def _has_living_threads(pid: int, stat: list[str]) -> bool:
    """A process shows the state of its first thread. When that one is a zombie, others may still run or unwind, and until the
    last of them has ended they hold the sockets and the GPU memory of them all.
    """
    if stat[STATE] not in ENDED:
        return True
    try:
        threads = list((PROC / str(pid) / "task").iterdir())
    except OSError:
        return False  # reaped meanwhile
    return any(fields[STATE] not in ENDED for thread in threads if (fields := _fields(thread)))


def all_pids() -> Iterator[int]:
    return (int(entry) for entry in os.listdir(PROC) if entry.isdigit())


def session_members(leader: Identity) -> list[Identity]:
    """The running processes of the session that ``leader`` began, itself included, even when it is gone.

    The kernel gives no pid away while a session of that number has members, so members that began after the leader are its
    own, unless another process now bears the leader's pid.
    """
    if not leader.here or leader.boot_id != boot_id():
        return []
    holder = _stat(leader.pid)
    if holder is not None and int(holder[START_TICKS]) != leader.start_ticks:
        return []
    members = []
    for pid in all_pids():
        stat = _stat(pid)
        if stat and int(stat[SESSION]) == leader.pid and int(stat[START_TICKS]) >= leader.start_ticks and _has_living_threads(pid, stat):
            members.append(Identity(leader.host, leader.boot_id, pid, int(stat[START_TICKS]), leader.job_id))
    return members


def command_line(pid: int) -> str:
    """The command as it was typed, or as the process titled itself; empty when it is gone or a kernel thread."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def catches(pid: int, number: signal.Signals) -> bool:
    """Has the process a handler of its own for the signal? SigCgt of /proc/PID/status; proc(5)."""
    return bool(int(_status(pid).get("SigCgt", "0"), 16) >> (number - 1) & 1)


def kernel_view(pid: int) -> str:
    """State of a process, and of each of its threads the state and the kernel function it waits in, for a person to read."""
    lines = [f"state: {_status(pid).get('State', 'gone')}"]
    try:
        threads = sorted((PROC / str(pid) / "task").iterdir(), key=lambda folder: int(folder.name))
    except OSError:
        threads = []
    for thread in threads:
        fields = _fields(thread)
        try:
            waits = (thread / "wchan").read_text().strip()
            name = (thread / "comm").read_text(errors="replace").strip()
        except OSError:
            continue  # it ended meanwhile
        lines.append(f"  thread {thread.name} {name}: {fields[STATE] if fields else '?'} {waits}".removesuffix(" 0"))
    return "\n".join(lines)


def _status(pid: int) -> dict[str, str]:
    try:
        text = (PROC / str(pid) / "status").read_text(errors="replace")
    except OSError:
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def environment_of(pid: int) -> bytes:
    """The environment the process was started with, NUL separated; empty when it is not ours to read."""
    try:
        return (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return b""


def resident_bytes(pid: int) -> int | None:
    try:
        return int((PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def send(process: Identity, number: signal.Signals) -> bool:
    """Signal exactly this process; False when it is gone already."""
    if not process.alive:
        return False
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def become_subreaper() -> None:
    """Orphans of our children become ours instead of init's, so that none gets lost. prctl(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def exit_in_words(returncode: int) -> str:
    """A wait status as people say it: ``exit code 1``, ``killed by SIGKILL (perhaps out of memory)``."""
    if returncode >= 0:
        return f"exit code {returncode}"
    name = signal.Signals(-returncode).name if -returncode in list(signal.Signals) else f"signal {-returncode}"
    return f"killed by {name}" + (" (by hand, or by the kernel for want of memory)" if name == "SIGKILL" else "")


def children_of(parent: int) -> list[int]:
    """Pids whose parent is ``parent``, those that have ended left out."""
    return [pid for pid in all_pids() if (stat := _stat(pid)) and int(stat[PARENT]) == parent and _has_living_threads(pid, stat)]
