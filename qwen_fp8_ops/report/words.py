"""Numbers as people read them."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

GIB = 1024**3


def duration(seconds: float) -> str:
    """``45 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``."""
    whole = max(0, round(seconds))
    days, hours, minutes, rest = whole // 86_400, whole // 3600 % 24, whole // 60 % 60, whole % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def gib(count: int | None) -> str:
    return "?" if count is None else f"{count / GIB:.2f} GiB"


def own_command() -> str:
    """How this installation's `qwen-fp8` is called from a shell as it is now: a .venv need not be on PATH."""
    beside = Path(sys.executable).with_name("qwen-fp8")
    if shutil.which("qwen-fp8") or not beside.exists():
        return "qwen-fp8"
    inside = beside.is_relative_to(Path.cwd())
    return shlex.quote(str(beside.relative_to(Path.cwd()) if inside else beside))


def load_line(load: dict[str, object]) -> str:
    """One line for a start in progress: ``loading weights 3/24``, with what is known of the time left."""
    names = {"init": "starting the engine", "weights": "loading weights", "compile": "compiling", "kv-cache": "making the KV cache", "graphs": "capturing graphs", "warm-up": "warming up"}
    text = names.get(str(load["phase"]), str(load["phase"]))
    if load.get("total"):
        text += f" {load['done'] or 0}/{load['total']}"
    elapsed, eta = load.get("elapsed_seconds"), load.get("eta_seconds")
    if isinstance(elapsed, (int, float)) and elapsed >= 5:
        text += f", {duration(elapsed)}"
    if isinstance(eta, (int, float)):
        text += f", about {duration(eta)} left"
    return text
