"""How a running batch looks: one bar on a terminal, a line every 30 s in a log file. All of it goes to stderr."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from qwen_fp8_ops.client.batch.tally import Tally
from qwen_fp8_ops.report.words import duration

LINE_SECONDS, BAR_SECONDS = 30.0, 0.5

Say = Callable[[str], None]


def progress_line(tally: Tally) -> str:
    """``120 of 1000 (12 %), 3 failed, 4.2 items/s, 310 tokens/s, 16 at once, about 3 min 30 s left``."""
    items, tokens = tally.rates()
    text = f"{tally.done}" + (f" of {tally.total} ({100 * tally.done // max(1, tally.total)} %)" if tally.total is not None else "")
    text += f", {tally.all_failed} failed" if tally.all_failed else ""
    if tally.waits_for:
        return f"{text}; waiting: {tally.waits_for}"
    text += f", {items:.1f} items/s, {tokens:.0f} tokens/s, {tally.in_flight} at once"
    left = tally.eta_seconds(items)
    return text + (f", about {duration(left)} left" if left is not None and tally.done else "")


@contextmanager
def screen_for(tally: Tally, say: Say) -> Iterator[Say]:
    """Show it while the block runs; gives how to say something meanwhile."""
    if sys.stderr.isatty():
        with _bar(tally) as print_above:
            yield print_above
    else:
        with _ticking(LINE_SECONDS, lambda: say(progress_line(tally))):
            yield say


@contextmanager
def _bar(tally: Tally) -> Iterator[Say]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns: tuple[Any, ...] = (BarColumn(24), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as progress:
        task = progress.add_task("", total=None)

        def show() -> None:
            progress.update(task, total=tally.total, completed=tally.done, description=progress_line(tally), refresh=True)

        with _ticking(BAR_SECONDS, show):
            yield lambda text: progress.console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _ticking(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    over = threading.Event()

    def tick() -> None:
        while not over.wait(seconds):
            act()

    thread = threading.Thread(target=tick, name="screen", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
