"""What must hold after a service has ended, however it ended: nothing of it is left on this machine."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from pathlib import Path

from qwen_fp8_ops.config.paths import RunPaths

PROC = Path("/proc")
KEPT = {"plan.json", "state.json", "events.jsonl", "load-times.json", "calibration.json", "poison.json", "lock.guard", "job.sbatch"}
"""What run/ may hold while nothing runs; everything else belongs to a living service, or is half of a write."""
SHARED_MEMORY = re.compile(r" (/dev/shm/\S+)")


def members(paths: RunPaths) -> list[int]:
    """Every process that bears the run's mark, by /proc and not by what the service says."""
    mark = b"QWEN_FP8_RUN=" + os.fsencode(paths.run) + b"\0"
    return [pid for pid in _pids() if mark in _read(pid, "environ") and _state(pid) not in ("Z", "X", "")]


class Watch:
    """Knows what the processes of a run have used of the machine: look while they live, ask when they should be gone."""

    def __init__(self, paths: RunPaths, ports: tuple[int, ...]) -> None:
        self.paths = paths
        self.ports = ports
        self.shared_memory: set[str] = set()
        self.temporary: set[Path] = set()

    def look(self) -> None:
        for pid in members(self.paths):
            self.shared_memory.update(SHARED_MEMORY.findall(_read(pid, "maps").decode(errors="replace")))
            self.temporary.update(_sockets_of(pid))

    def left(self) -> list[str]:
        """In words; empty when all is well."""
        found = [f"pid {pid} runs: {_read(pid, 'cmdline')[:120].decode(errors='replace')}" for pid in members(self.paths)]
        found += [f"port {port} is taken" for port in self.ports if not _is_free(port)]
        found += [f"shared memory {name}" for name in sorted(self.shared_memory) if Path(name).exists()]
        found += [f"temporary file {path}" for path in sorted(self.temporary) if path.exists()]
        run = self.paths.run
        found += [f"run/{name}" for name in sorted(os.listdir(run) if run.is_dir() else []) if name not in KEPT]
        return found


def _sockets_of(pid: int) -> set[Path]:
    """Paths of the Unix sockets that a process has open."""
    folder = PROC / str(pid) / "fd"
    inodes = set()
    with contextlib.suppress(OSError):  # it ended meanwhile
        for entry in os.listdir(folder):
            with contextlib.suppress(OSError):  # that was closed meanwhile
                inodes.update(re.findall(r"socket:\[(\d+)\]", os.readlink(folder / entry)))
    lines = [line.split(None, 7) for line in (PROC / "net/unix").read_text(errors="replace").splitlines()[1:]]
    return {Path(words[7]) for words in lines if len(words) == 8 and words[6] in inodes and words[7].startswith("/")}


def _pids() -> list[int]:
    return [int(name) for name in os.listdir(PROC) if name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    try:
        return (PROC / str(pid) / name).read_bytes()
    except OSError:
        return b""


def _state(pid: int) -> str:
    return _read(pid, "stat").rpartition(b")")[2][1:2].decode()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that the kernel still closes are no listener
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
