"""The words of SLURM's answers as values. Pure: text in, values out, None for what the text does not tell."""

from __future__ import annotations

import re
from datetime import datetime

from qwen_fp8_ops.outside import clock

UNITS = {"": 1 << 20, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
"""SLURM's memory sizes are MiB where no unit is given."""


def whole(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() else None


def indices(text: str | None) -> tuple[int, ...]:
    """``0-3,6`` as (0, 1, 2, 3, 6); nothing for anything else, UUIDs among it."""
    found: list[int] = []
    for part in (text or "").split(","):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part.strip(), re.ASCII)
        if match is None:
            return ()
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return tuple(found)


def memory_bytes(text: str | None) -> int | None:
    """``320G``, ``32768`` or ``2.50T`` in bytes; None also for 0, which means no limit of its own."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", text or "", re.ASCII)
    return round(float(match[1]) * UNITS[match[2]]) or None if match else None


def seconds(text: str | None) -> int | None:
    """A span such as ``1-02:03:04``, ``10:00`` or ``30`` (minutes, as SLURM reads it) in seconds; None for UNLIMITED, INVALID and their like."""
    match = re.fullmatch(r"(?:(?P<days>\d+)-)?(?P<rest>\d+(?::\d+){0,2})", text or "", re.ASCII)
    if match is None:
        return None
    parts = [int(part) for part in match["rest"].split(":")]
    if match["days"] is not None:  # days-hours[:minutes[:seconds]]
        hours, minutes, rest = [*parts, 0, 0][:3]
        return int(match["days"]) * 86400 + hours * 3600 + minutes * 60 + rest
    hours, minutes, rest = [[0, *parts, 0], [0, *parts], parts][len(parts) - 1]
    return hours * 3600 + minutes * 60 + rest


def moment(text: str | None) -> str | None:
    """A moment in the cluster's local time as ISO 8601 in UTC; None for N/A, Unknown and NONE."""
    try:
        return clock.iso(datetime.fromisoformat(text or "").timestamp())
    except (ValueError, OverflowError):
        return None


def hosts(text: str | None) -> tuple[str, ...]:
    """``node[07-09,12],gpu1`` as names; what has more than one bracket is left as it stands."""
    found: list[str] = []
    for part in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", text or ""):
        match = re.fullmatch(r"([^\[]*)\[([\d,-]+)\]([^\[]*)", part, re.ASCII)
        if match is None:
            found.append(part)
            continue
        for span in match[2].split(","):
            first, _, last = span.partition("-")
            found += [f"{match[1]}{number:0{len(first)}}{match[3]}" for number in range(int(first), int(last or first) + 1)]
    return tuple(name for name in found if name != "(null)")
