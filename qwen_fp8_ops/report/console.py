"""What a terminal, or a log file, is told while the service starts, runs and stops. Everything here goes to stderr."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from qwen_fp8_ops.outside import clock
from qwen_fp8_ops.outside.log_line import log_line
from qwen_fp8_ops.report.gpu_watch import GpuWatch
from qwen_fp8_ops.report.text import render_ready
from qwen_fp8_ops.report.words import load_line
from qwen_fp8_ops.service.states import State

REPEAT_SECONDS = 30.0
LEVELS = ("debug", "info", "warning", "error")


class Console:
    """On a terminal one moving line, elsewhere a line at each change and every 30 s. ``log_format`` json gives one object a line, with the
    fields of ``outside.log_line``."""

    def __init__(self, log_format: str = "text", log_level: str = "info", announce: Callable[[], None] | None = None, gpus: GpuWatch | None = None) -> None:
        """
        Args:
            log_level: what is below it is not said; that the service is ready always is.
            announce: takes the place of the text that is printed when the service is ready.
            gpus: are shown while the engine loads, and when the service is ready.
        """
        self._json = log_format == "json"
        self._threshold = LEVELS.index(log_level)
        self._announce = announce
        self._gpus = gpus
        self._progress: Any = None
        self._task: Any = None
        self._last = ("", 0.0)
        self._moving = sys.stderr.isatty() and not self._json

    def say(self, text: str, level: str = "info") -> None:
        self._say("message", text, level)

    def _say(self, event: str, text: str, level: str) -> None:
        if LEVELS.index(level) >= self._threshold:
            self._print(event, text, level)

    def _print(self, event: str, text: str, level: str) -> None:
        line = text if level == "info" else f"{level}: {text}"
        with _whoever_listens():
            if self._json:
                print(log_line(clock.now(), level, event, message=text), file=sys.stderr, flush=True)
            elif self._progress is not None:
                self._progress.console.print(line, markup=False, highlight=False)
            else:
                print(line, file=sys.stderr, flush=True)

    def progress(self, text: str, fraction: float | None = None) -> None:
        if self._moving:
            self._move(text, fraction)
            return
        said, moment = self._last
        key = text.partition(",")[0]
        if key != said or clock.monotonic() - moment > REPEAT_SECONDS:
            self._last = (key, clock.monotonic())
            self._say("progress", text, "info")

    def _move(self, text: str, fraction: float | None) -> None:
        if self._progress is None:
            from rich.console import Console as RichConsole
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

            columns = SpinnerColumn(), BarColumn(bar_width=24), TextColumn("{task.description}", markup=False)
            self._progress = Progress(*columns, console=RichConsole(stderr=True), transient=True)
            self._task = self._progress.add_task("")
            with _whoever_listens():
                self._progress.start()
        self._progress.update(self._task, description=text, total=1.0 if fraction is not None else None, completed=fraction or 0.0)

    def update(self, state: State, snapshot: dict[str, Any]) -> None:
        load = snapshot.get("load")
        if state is State.STARTING and load:
            seen = self._gpus.glance() if self._gpus else ""
            self.progress(", ".join(filter(None, (load_line(load), seen))), load.get("fraction"))
        elif state in (State.STARTING, State.STOPPING, State.PREFLIGHT):
            self.progress({State.STARTING: "waiting to start the engine again", State.STOPPING: "stopping", State.PREFLIGHT: "checking"}[state])
        elif state is not State.DRAINING:
            self.close()

    def ready(self, snapshot: dict[str, Any], seconds: float) -> None:
        self.close()
        if self._announce:
            self._announce()
        elif self._json:
            self._print("ready", f"ready after {seconds:.1f} s at {snapshot['url']}", "info")
        else:
            lines = self._gpus.lines() if self._gpus else []
            with _whoever_listens():
                print("\n".join([*lines, render_ready(snapshot, seconds)]), file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the moving line; what is printed next begins on a line of its own."""
        if self._gpus:
            self._gpus.stop()
        if self._progress is not None:
            with _whoever_listens():
                self._progress.stop()
            self._progress = None


@contextlib.contextmanager
def _whoever_listens() -> Iterator[None]:
    """A terminal that was closed, a pipe whose reader has gone, a full disk under the log: what is said gets lost, and that is all."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EIO, errno.EPIPE):  # for good; else what is still in the buffer would spoil the exit code
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stderr.fileno())
            os.close(nowhere)
