"""What a dead engine leaves: the end of its log, its exit status, and what the host can say about its death."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from qwen_fp8_ops.config.settings import Settings
from qwen_fp8_ops.engine.root_cause import SILENT, RootCause, find_root_cause
from qwen_fp8_ops.engine.startup_log import StartupLog

FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
"""Signals that somebody else sends: what the log complained of before them is not why the engine ended."""

OUT_OF_MEMORY = re.compile(
    r"CUDA out of memory|torch(?:\.cuda)?\.OutOfMemoryError|CUDA error: out of memory|Cuda failure (?:\d+ )?'out of memory'|CUBLAS_STATUS_ALLOC_FAILED|not enough GPU memory"
)
STAGE_OF_PHASE = {"init": "load", "weights": "load", "compile": "profile", "kv-cache": "warm-up", "graphs": "warm-up", "warm-up": "warm-up"}
"""What an engine does in each phase of its log: between the weights and the KV cache it measures what a full step takes."""
STAGE_OF_CALL = {
    "init_device": "load",
    "load_model": "load",
    "determine_available_memory": "profile",
    "initialize_from_config": "warm-up",
    "compile_or_warm_up_model": "warm-up",
}
"""The worker's methods that the engine core calls before it serves (vllm/v1/worker/gpu_worker.py); the outermost frame counts."""
LOADING = re.compile(r"Failed to load model|WorkerProc failed to start")
"""A worker is started when its weights are loaded; later failures are told in other words."""
FRAME = re.compile(r'File ".*", line \d+, in (\w+)')

MOST_COMPLAINTS = 50
DIED = "died unexpectedly"
"""The engine core's words for a worker that ended without its own (vllm/v1/executor/multiproc_executor.py)."""
RECORD = re.compile(r"\([A-Za-z][\w-]* pid=\d+\) [A-Z]+ \S+ \S+ \[[^\]]*\]")
PROCESS = re.compile(r"\([A-Za-z][\w-]* pid=(\d+)\)")


@dataclass(frozen=True)
class Scene:
    """Facts only. What takes time to find out is a function, asked by the rule that needs it.

    Attributes:
        log: the last lines of the attempt's log.
        returncode: of the API server, as ``subprocess`` has it: negative for a signal.
        was_ready: had this attempt served?
        pid: the API server's.
        kernel_lines: what the kernel logged during the attempt; empty where it may not be read.
        oom_kills: processes that the kernel ended for want of memory in our control group, during the attempt.
        seconds_left: until the SLURM job's time is up; None without such an end.
        holders: who else holds memory of our GPUs, in words.
        bad_files: files of the checkpoint that are not whole, in words.
        port_owner: who has the engine's port, in words; empty when nobody has it now.
    """

    log: tuple[str, ...]
    returncode: int
    settings: Settings
    was_ready: bool = False
    pid: int | None = None
    kernel_lines: tuple[str, ...] = ()
    oom_kills: int = 0
    seconds_left: float | None = None
    holders: Callable[[], tuple[str, ...]] = field(default=tuple, compare=False)
    bad_files: Callable[[], tuple[str, ...]] = field(default=tuple, compare=False)
    port_owner: Callable[[], str] = field(default=str, compare=False)

    @property
    def ended_from_outside(self) -> bool:
        return -self.returncode in FROM_OUTSIDE

    @cached_property
    def root(self) -> RootCause:
        if self.ended_from_outside:
            return RootCause((), told=False)
        return find_root_cause(self.log, most=MOST_COMPLAINTS, was_ready=self.was_ready)

    @property
    def complaints(self) -> tuple[str, ...]:
        """What the dying engine said of itself, the innermost process first; nothing of requests that it refused."""
        return self.root.lines if self.root.told else ()

    @property
    def sudden(self) -> bool:
        """Did a process of the engine end without saying why, as one that was killed does?"""
        said = self.complaints
        if self.ended_from_outside:
            return self.returncode == -signal.SIGKILL
        return (self.returncode != 0 and not said) or SILENT in said or any(DIED in line for line in said)

    @property
    def pids(self) -> frozenset[int]:
        """Of the engine's processes: they title each line of the log with their own."""
        named = {int(found[1]) for line in self.log if (found := PROCESS.match(line))}
        return frozenset(named | ({self.pid} if self.pid else set()))

    @cached_property
    def stage(self) -> str:
        """``load``, ``profile``, ``warm-up`` or ``serving``: what the process did that ran out of memory. Its traceback tells, for
        another rank may be ahead; else how far the log came.
        """
        if self.was_ready:
            return "serving"
        full = next((index for index, line in enumerate(self.log) if OUT_OF_MEMORY.search(line)), len(self.log) - 1)
        before = self.log[: full + 1]
        head = _head(before[-1]) if before else ""
        record = [line for line in before if _head(line) == head]
        called = next((STAGE_OF_CALL[found[1]] for line in record if (found := FRAME.search(line)) and found[1] in STAGE_OF_CALL), None)
        if called or not before or any(LOADING.search(line) for line in record):
            return called or "load"
        progress = StartupLog()
        for line in before:
            progress.feed(line)
        return STAGE_OF_PHASE[progress.phase]

    @cached_property
    def kv_room_gib(self) -> float | None:
        """What was left for the KV cache, by the engine's own measurement on the fullest GPU; may be negative."""
        rooms = [float(found[1]) for line in self.log if (found := re.search(r"Available KV cache memory: (-?[\d.]+) GiB", line))]
        return min(rooms, default=None)


def _head(line: str) -> str:
    """Process, time and place of a record: what its lines have in common. Empty for a line of no record."""
    return found[0] if (found := RECORD.match(line)) else ""
