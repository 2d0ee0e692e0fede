"""How a download looks: bars on a terminal, a line every 30 s in a log file. All of it goes to stderr."""

from __future__ import annotations

import sys
import threading
from collections import deque
from typing import Any

from qwen_fp8_ops.outside import clock
from qwen_fp8_ops.report.words import duration
from qwen_fp8_ops.weights.download_plan import DownloadPlan, Presence
from qwen_fp8_ops.weights.manifest import ManifestFile
from qwen_fp8_ops.weights.room import gigabytes

REPEAT_SECONDS = 30.0
WINDOW_SECONDS = 60.0


class Tally:
    """What is there of how much, and how fast it came lately. Only bytes from the network make the rate: a check of what is there is faster."""

    def __init__(self, plan: DownloadPlan) -> None:
        self.total_bytes, self.total_files = plan.bytes, len(plan.items)
        there = [item for item in plan.items if item.presence is Presence.VERIFIED]
        self.bytes, self.files = sum(item.file.bytes for item in there), len(there)
        self._fetched = 0
        self._marks = deque([(clock.monotonic(), 0)])

    def move(self, count: int, *, fetched: bool) -> None:
        self.bytes += count
        self._fetched += count if fetched else 0

    def rate(self) -> float:
        """Bytes per second over the last minute; each call is a mark for the later ones."""
        now = clock.monotonic()
        self._marks.append((now, self._fetched))
        while len(self._marks) > 2 and now - self._marks[1][0] > WINDOW_SECONDS:
            self._marks.popleft()
        began, before = self._marks[0]
        return (self._fetched - before) / (now - began) if now > began else 0.0

    def line(self) -> str:
        share = 100 * self.bytes // self.total_bytes if self.total_bytes else 100
        text = f"{gigabytes(self.bytes)} of {gigabytes(self.total_bytes)} ({share} %), {self.files} of {self.total_files} files"
        rate = self.rate()
        if rate >= 1:
            text += f", {gigabytes(round(rate))}/s, about {duration((self.total_bytes - self.bytes) / rate)} left"
        return text


class Lines:
    """For a log file: a line every 30 s, in a thread of its own, for also a transfer that stands still is to be seen."""

    def __init__(self, repeat_seconds: float = REPEAT_SECONDS) -> None:
        self._repeat, self._guard = repeat_seconds, threading.Lock()
        self._tally: Tally | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def begin(self, plan: DownloadPlan) -> None:
        self._tally = Tally(plan)
        self._thread.start()

    def moved(self, name: str, count: int, *, fetched: bool) -> None:
        if self._tally:
            self._tally.move(count, fetched=fetched)

    def finished(self, file: ManifestFile) -> None:
        if self._tally:
            self._tally.files += 1

    def say(self, text: str) -> None:
        with self._guard:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _tell(self) -> None:
        while self._tally and not self._over.wait(self._repeat):
            self.say(self._tally.line())


class Bars:
    """For a person: one bar for all, one for each file that is on its way."""

    def __init__(self) -> None:
        self._progress: Any = None
        self._files: dict[str, Any] = {}
        self._sizes: dict[str, int] = {}
        self._tally: Tally | None = None

    def begin(self, plan: DownloadPlan) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(24), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._sizes = {item.file.name: item.file.bytes for item in plan.todo}
        self._tally = Tally(plan)
        self._all = self._progress.add_task(self._title(), total=plan.bytes, completed=self._tally.bytes)
        self._progress.start()

    def _title(self) -> str:
        return f"{self._tally.files} of {self._tally.total_files} files" if self._tally else ""

    def moved(self, name: str, count: int, *, fetched: bool) -> None:
        if self._tally is None:
            return
        self._tally.move(count, fetched=fetched)
        if name not in self._files:
            self._files[name] = self._progress.add_task(f"  {_short(name)}", total=self._sizes.get(name))
        self._progress.advance(self._files[name], count)
        self._progress.advance(self._all, count)

    def finished(self, file: ManifestFile) -> None:
        if self._tally is None:
            return
        self._tally.files += 1
        self._progress.update(self._all, description=self._title())
        if (task := self._files.pop(file.name, None)) is not None:
            self._progress.remove_task(task)

    def say(self, text: str) -> None:
        if self._progress:
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._progress:
            self._progress.stop()


def make_screen() -> Lines | Bars:
    return Bars() if sys.stderr.isatty() else Lines()


def _short(name: str) -> str:
    return name if len(name) <= 36 else f"...{name[-33:]}"
