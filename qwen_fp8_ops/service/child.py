"""One program of the plan while it runs: its process, its health, its log, and the deaths it died."""

from __future__ import annotations

import errno
import os
import subprocess
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO

from qwen_fp8_ops.engine.command import NOT_INHERITED
from qwen_fp8_ops.engine.metrics import EngineMetrics
from qwen_fp8_ops.engine.startup_log import StartupLog
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import clock, process
from qwen_fp8_ops.outside.process import Identity
from qwen_fp8_ops.outside.weight_traces import remove_counters, remove_sockets
from qwen_fp8_ops.plan.program import RUN_MARK, Program
from qwen_fp8_ops.service import log_files, scratch
from qwen_fp8_ops.service.prober import Prober, Probing

LOG_ROOM_BYTES = 64 << 10


class Life(StrEnum):
    """Where a child is; "ready" is asked over HTTP and is more than being alive."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    FAILING = "failing"
    STOPPED = "stopped"


@dataclass
class Child:
    """``reused``: a media server that somebody else started and we only use. ``alone``: it runs without what it needs. ``family``:
    the pids of its processes when it became ready. ``expected_seconds``: what an earlier start of the same took. ``unlogged``: why it
    runs without a log. Moments are monotonic seconds.
    """

    program: Program
    life: Life = Life.WAITING
    popen: subprocess.Popen[bytes] | None = None
    identity: Identity | None = None
    reused: bool = False
    alone: bool = False
    family: frozenset[int] = frozenset()
    expected_seconds: float | None = None
    was_ready: bool = False
    starts: int = 0
    deaths: list[float] = field(default_factory=list)
    start_at: float = 0.0
    started: float = 0.0
    failing_since: float = 0.0
    problem: str = ""
    unlogged: str = ""
    prober: Prober | None = None
    startup: StartupLog = field(default_factory=StartupLog)
    tail: log_files.Tail | None = None
    metrics: EngineMetrics | None = None

    @property
    def running(self) -> bool:
        return self.popen is not None and self.popen.returncode is None

    @property
    def restarts(self) -> int:
        return max(0, self.starts - 1)

    def start(self, job_id: str | None, probing: Probing, *, alone: bool = False) -> None:
        """Begin a new attempt in a session of its own, with a log file of its own.

        Args:
            alone: what it needs has been given up.

        Raises:
            OpsError: the command or its log file cannot be opened.
        """
        log = Path(self.program.log)
        environ = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        environ |= scratch.environment(Path(self.program.env[RUN_MARK])) | dict(self.program.env)
        try:
            with self._new_log(log) as output:
                self.popen = subprocess.Popen(
                    self.program.argv_alone if alone else self.program.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environ,
                    start_new_session=True,
                )
        except OSError as error:
            raise OpsError(f"Cannot start {self.program.name}: {error.strerror}: {error.filename}", code="cannot-start") from error
        self.identity = process.identify(self.popen.pid, job_id)
        self.life, self.started, self.problem = Life.STARTING, clock.monotonic(), ""
        self.starts, self.alone = self.starts + 1, alone
        self.startup, self.tail, self.metrics = StartupLog(), log_files.Tail(log), None
        self.watch(probing)

    def _new_log(self, log: Path) -> IO[bytes]:
        """A file for this attempt, with room for what it will say: a program that fails to print may end for that.

        Raises:
            OSError: the folder refuses it. Only a first start fails for that: what has served is better without a log than not at all.
        """
        self.unlogged = ""
        try:
            log.parent.mkdir(parents=True, exist_ok=True)  # somebody may have tidied up
            log_files.rotate(log)
            return _with_room(log)
        except OSError as error:
            if not self.was_ready:
                raise
            self.unlogged = error.strerror or str(error)
            return open(os.devnull, "ab")

    def reuse(self, probing: Probing) -> None:
        self.reused, self.life, self.started = True, Life.STARTING, clock.monotonic()
        self.watch(probing)

    def watch(self, probing: Probing) -> None:
        self.prober = Prober(self.program, self.identity, probing)
        self.prober.start()

    def read_log(self) -> None:
        for line in self.tail.lines() if self.tail else ():
            self.startup.feed(line)

    def ended(self) -> None:
        """The process is gone, or is about to be: nobody asks it any more."""
        if self.prober:
            self.prober.cancel()
            self.prober = None

    def remove_traces(self) -> None:
        """What it leaves behind that is no process; it has ended."""
        remove_counters(self.family)
        if self.program.sockets:
            remove_sockets(Path(self.program.sockets))

    def members(self) -> list[Identity]:
        """Every living process of this attempt: the program, its workers, and workers whose parent died."""
        return process.session_members(self.identity) if self.identity else []


def _with_room(log: Path) -> IO[bytes]:
    """
    Raises:
        OSError: the disk has no room even for the beginning of a log.
    """
    output = log.open("ab", buffering=0)  # O_APPEND: the log can then be emptied under the writer (log_files.cut)
    try:
        written = output.write(bytes(LOG_ROOM_BYTES))
        output.truncate(0)
    except OSError:
        output.close()
        raise
    if written < LOG_ROOM_BYTES:
        output.close()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(log))
    return output
