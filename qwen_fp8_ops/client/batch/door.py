"""Whether the service takes requests. While it does not, every request of a run waits here, and nobody's tries are used up.

A service of ours says what it is doing at ``/service``; any other is asked for /health, and where it has none, for its models. A
service that was started again may have another address and has another key: where it is, is asked anew before each look.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import TracebackType
from typing import Self

from qwen_fp8_ops.client.async_api import AsyncApi, Endpoint
from qwen_fp8_ops.client.batch.retry import LONGEST_ASKED_SECONDS
from qwen_fp8_ops.client.failures import ApiError
from qwen_fp8_ops.client.request import Limits
from qwen_fp8_ops.errors import NotRunningError, OpsError
from qwen_fp8_ops.outside import clock

READY = frozenset({"ready", "degraded"})
PAGES = ("/service", "/health", "/v1/models")
FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS = 0.2, 5.0

Locate = Callable[[], Endpoint]
"""Where the service is now. It may raise NotRunningError, whose message then tells how far it is."""


class Door:
    """For one event loop; shut until the first look has found the service. A context manager, which closes its connections.

    Args:
        say: for a person, each time something else is waited for.
        patience_seconds: the longest wait for a service that does not come back.
    """

    def __init__(self, locate: Locate, *, limits: Limits, patience_seconds: float, say: Callable[[str], None]) -> None:
        self._locate, self._limits, self._say = locate, limits, say
        self._patience_seconds = patience_seconds
        self._api: AsyncApi | None = None
        self._endpoint: Endpoint | None = None
        self._opened = asyncio.Event()
        self._opened.set()
        self._looking: asyncio.Task[None] | None = None
        self._gone: OpsError | None = None
        self.waits_for = ""

    @property
    def api(self) -> AsyncApi:
        """There is one as soon as the door was open once."""
        assert self._api is not None
        return self._api

    @property
    def is_open(self) -> bool:
        return self._opened.is_set()

    @property
    def endpoint(self) -> Endpoint | None:
        """Where the service was when it was last looked at."""
        return self._endpoint

    async def opened(self) -> None:
        """
        Raises:
            OpsError: the service did not come back in time.
        """
        await self._opened.wait()
        if self._gone:
            raise self._gone

    def doubt(self, words: str = "", pause_seconds: float | None = None) -> None:
        """Let no request begin before the service is seen to be well: one failed in a way that may be the service's.

        Args:
            words: why, if it is to be said.
            pause_seconds: what the service itself asked for; it is not looked at earlier.
        """
        if self._opened.is_set() and not self._gone:
            self._opened.clear()
            self.waits_for = words
            self._looking = asyncio.create_task(self._look_until_open(pause_seconds))

    async def __aenter__(self) -> Self:
        self.doubt()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._looking and not self._looking.done():
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        if self._api:
            await self._api.close()

    async def _look_until_open(self, pause_seconds: float | None) -> None:
        began, wait, said = clock.monotonic(), FIRST_LOOK_SECONDS, ""
        try:
            if pause_seconds:
                await asyncio.sleep(min(pause_seconds, LONGEST_ASKED_SECONDS))
            while words := await self._look():
                self.waits_for = words
                if words.partition(",")[0] != said:  # behind the comma are times, which always change
                    said = words.partition(",")[0]
                    self._say(f"waiting: {words}")
                if clock.monotonic() - began > self._patience_seconds:
                    self._gone = NotRunningError(
                        f"The service took no requests for {self._patience_seconds:g} s: {words}",
                        code="unavailable",
                        fix="Everything done so far is saved: the same command, without --overwrite, goes on from here. --patience SECONDS waits longer.",
                    )
                    return
                await asyncio.sleep(wait)
                wait = min(LONGEST_LOOK_SECONDS, 1.5 * wait)
            if said:
                self._say("the service is ready")
        except OpsError as error:
            self._gone = error  # such as a key file that cannot be read: waiting does not help
        finally:
            self.waits_for = ""
            self._opened.set()

    async def _look(self) -> str:
        """What the service is doing, in words; empty when it takes requests."""
        try:
            endpoint = await asyncio.to_thread(self._locate)
        except NotRunningError as error:
            return error.message
        if self._api is None:
            self._api = AsyncApi(endpoint.url, key=endpoint.key, limits=self._limits)
        elif endpoint != self._endpoint:
            self._api.move(endpoint)
        self._endpoint = endpoint
        try:
            for page in PAGES:
                status, body = await self._api.peek(page)
                if status not in (404, 405):
                    break
        except ApiError as error:
            return error.message
        return phase(status, body)


def phase(status: int, body: bytes) -> str:
    """What a status page says, in words; empty when requests are taken, also by a server whose answer we do not understand."""
    if status >= 500:
        return f"the server answers HTTP {status}"
    try:
        page = json.loads(body)
        gate, service = page["gate"], page["service"]
        if gate["draining"]:
            return "the service is stopping"
        if service is None or service["state"] in READY:
            return ""
        load = service.get("load") or {}
        parts = f" {load.get('done') or 0}/{load['total']}" if load.get("total") else ""
        return f"the service is {service['state']}" + (f" ({load['phase']}{parts})" if load.get("phase") else "")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ""
