"""When an engine has died, and only then: which lines of its log say why. ``engine.failures`` judges them.

The last traceback of a dying vLLM is rarely the cause: the API server reports that the engine core failed, which reports that a
worker failed. So the innermost process that says something of its own is believed. Where only the outer ones complain, an inner one
was killed. Where it was the API server alone, its last traceback counts. What it logs of a request that failed, or of a task that
nobody waited for, did no harm and never counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qwen_fp8_ops.engine.complaints import LONGEST, Complaint, Line, complaints_of

SILENT = "a process of the engine ended without a word, as one that was killed does (for want of memory, or by hand)"
UNTOLD = "its log does not say why"
FAREWELL = re.compile(r"nanobind: | - (?:leaked|\.\.\. skipped)|See https://nanobind|.*resource_tracker|  warnings\.warn\(|INFO:     ")
"""What a process says when it ends, whatever it ends of."""


@dataclass(frozen=True)
class RootCause:
    """``lines``: the telling one first, then more evidence. Where ``told`` is false they are only the log's last ones."""

    lines: tuple[str, ...]
    told: bool = True

    @property
    def headline(self) -> str:
        return self.lines[0] if self.told and self.lines else UNTOLD


def find_root_cause(log: Sequence[str], *, most: int = 6, was_ready: bool = False) -> RootCause:
    """Read the log of a dead engine.

    Args:
        was_ready: it served already where the log begins: the first lines of a long one are not kept.
    """
    lines = _telling([complaint for complaint in complaints_of(log, was_ready=was_ready) if not complaint.harmless])
    if lines:
        return RootCause(tuple(lines[:most]))
    ends_with = _shortened(Line.of(line).text.strip() for line in log if line.strip() and not FAREWELL.match(line))
    return RootCause(tuple(ends_with[-most:]), told=False)


def _telling(complaints: Sequence[Complaint]) -> list[str]:
    """What they say, nearest to the cause first."""
    own = [complaint for complaint in complaints if not complaint.second_hand]
    inner = sorted((complaint for complaint in own if complaint.depth), key=lambda complaint: -complaint.depth)  # stable: first in the log first
    if inner:
        return _texts(inner)
    if len(own) < len(complaints):
        return _texts(complaint for complaint in own if not complaint.after_ready) or [SILENT, *_texts(complaints)]
    return _texts(complaint for complaint in reversed(own) if complaint.chain == own[-1].chain)


def _texts(complaints: Iterable[Complaint]) -> list[str]:
    return _shortened(complaint.text for complaint in complaints)


def _shortened(texts: Iterable[str]) -> list[str]:
    """Each once."""
    return list(dict.fromkeys(text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…" for text in texts))
