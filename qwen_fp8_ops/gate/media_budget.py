"""How much media may be fetched for one request, over all its pictures and films together (MAX_MEDIA_MB).

vLLM makes a connector for each *message* of a request and fetches all its media at the same time, so the account belongs to neither. The
gate opens it where a request enters; whatever runs for that request finds it by its context, which asyncio hands on to every task.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar

MOST_BYTES = 512_000_000
"""The default of MAX_MEDIA_MB."""


class SpentError(Exception):
    """The request's media are more than it may have; the text is for the client."""


class MediaBudget:
    """Bytes that may still be taken in. Fetches count from the event loop, files from threads."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._left = most_bytes
        self._lock = threading.Lock()

    def spend(self, size: int) -> None:
        """
        Raises:
            SpentError: it is more than was left. Nothing is left then.
        """
        with self._lock:
            self._left -= size
            if self._left < 0:
                raise self._spent()

    def check(self, announced: int) -> None:
        """Is there room for a body of this length? Asked before the first byte of it is taken.

        Raises:
            SpentError: there is not.
        """
        if announced > self._left:
            raise self._spent()

    def _spent(self) -> SpentError:
        return SpentError(f"the media of this request are together larger than {self._most_bytes} bytes (MAX_MEDIA_MB)")


CURRENT: ContextVar[MediaBudget | None] = ContextVar("media_budget", default=None)
"""Of the request that this task or thread works for; None outside of one."""
