"""Two clocks: wall time for stamps, monotonic time for durations."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> str:
    """Wall time as ISO 8601 in UTC, to the millisecond."""
    return iso(time.time())


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_since(stamp: str) -> float:
    """Wall seconds since an ISO stamp; negative when it lies ahead."""
    return time.time() - datetime.fromisoformat(stamp).timestamp()


def monotonic() -> float:
    return time.monotonic()
