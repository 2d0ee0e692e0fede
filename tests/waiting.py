"""Waiting for an event and not for a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def wait_for(condition: Callable[[], Any], what: str, patience_seconds: float = 60.0) -> Any:
    """The condition's value once it is true; fails with ``what`` when patience ends."""
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"in {patience_seconds:g} s it did not happen that {what}")
