"""The GPUs while a start loads: one mark a GPU for how full it is, and at the end the whole picture."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from qwen_fp8_ops.report.gpu_text import render_gpus
from qwen_fp8_ops.report.screen import Screen
from qwen_fp8_ops.report.words import GIB

LOOK_SECONDS = 2.0
EIGHTHS = "▁▂▃▄▅▆▇█"
TENTHS = "0123456789"


def glance(gpus: list[dict[str, Any]], screen: Screen) -> str:
    """``GPUs ▃▃▃▃▃▃▃▃ 28.1 to 28.4 of 79.6 GiB``, in ASCII the full tenths: ``GPUs 33333333 ...``; empty without a GPU of ours."""
    known = [gpu for gpu in gpus if gpu["ours"] and gpu["memory_total_bytes"] and gpu["memory_used_bytes"] is not None]
    if not known:
        return ""
    marks = EIGHTHS if screen.unicode else TENTHS
    text = "".join(marks[min(len(marks) - 1, gpu["memory_used_bytes"] * len(marks) // gpu["memory_total_bytes"])] for gpu in known)
    used = [f"{gpu['memory_used_bytes'] / GIB:.1f}" for gpu in sorted(known, key=lambda gpu: int(gpu["memory_used_bytes"]))]
    spread = used[0] if used[0] == used[-1] else f"{used[0]} to {used[-1]}"
    return f"GPUs {text} {spread} of {known[0]['memory_total_bytes'] / GIB:.1f} GiB"


class GpuWatch:
    """Looks again and again in a thread of its own: a driver that hangs must not hold up the supervisor, whose progress this is."""

    def __init__(self, look: Callable[[], dict[str, Any]], screen: Screen) -> None:
        """
        Args:
            look: gives what `gpus --json` shows.
        """
        self._look = look
        self._screen = screen
        self._latest = ""
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def glance(self) -> str:
        """What was seen last; the first call begins to look."""
        if self._thread is None:
            self._ended = threading.Event()
            self._thread = threading.Thread(target=self._watch, args=(self._ended,), name="gpu-watch", daemon=True)
            self._thread.start()
        return self._latest

    def lines(self) -> list[str]:
        """Whose memory is whose now."""
        return render_gpus(self._look(), self._screen)

    def stop(self) -> None:
        self._ended.set()
        self._thread, self._latest = None, ""

    def _watch(self, ended: threading.Event) -> None:
        while not ended.is_set():
            self._latest = glance(self._look()["gpus"], self._screen)
            if not self._latest:
                return  # no GPU will come while we load
            ended.wait(LOOK_SECONDS)
