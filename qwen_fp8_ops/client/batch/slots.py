"""Places for requests on their way; how many there are may change at any moment. For one event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class StoppedError(Exception):
    """No request begins any more; what was to be sent stays undone and is not lost."""


class Slots:
    """``taken`` is never more than ``limit``, except for requests that were on their way when it was lowered. Who came first goes first.

    ``was_full`` tells whether somebody had to wait since it was last set to False.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.taken = 0
        self.was_full = False
        self._stopped = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        return self._limit

    @limit.setter
    def limit(self, value: int) -> None:
        self._limit = value
        self._wake()

    def stop(self) -> None:
        """Whoever waits, now or later, gets StoppedError."""
        self._stopped = True
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(StoppedError())
        self._waiting.clear()

    async def take(self) -> None:
        """Wait for a place; it is given back with ``free``.

        Raises:
            StoppedError: see ``stop``.
        """
        if self._stopped:
            raise StoppedError
        if self.taken >= self._limit or self._waiting:
            self.was_full = True
            await self._wait()
        else:
            self.taken += 1

    def free(self) -> None:
        self.taken -= 1
        self._wake()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """
        Raises:
            StoppedError: see ``stop``.
        """
        await self.take()
        try:
            yield
        finally:
            self.free()

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:  # the place was ours already
                self.free()
            raise

    def _wake(self) -> None:
        while self._waiting and self.taken < self._limit:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self.taken += 1
                waiter.set_result(None)
