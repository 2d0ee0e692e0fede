"""One prepared item against the service, until it has an answer or a failure that counts."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from qwen_fp8_ops.client.answers import Reply
from qwen_fp8_ops.client.batch.door import Door
from qwen_fp8_ops.client.batch.item import Failure, Outcome
from qwen_fp8_ops.client.batch.pace import Pace
from qwen_fp8_ops.client.batch.prepare import Prepared
from qwen_fp8_ops.client.batch.retry import STRAIN, Verdict, judge, wait_seconds
from qwen_fp8_ops.client.batch.slots import Slots, StoppedError
from qwen_fp8_ops.client.batch.thinking import split_thinking
from qwen_fp8_ops.client.failures import ApiError
from qwen_fp8_ops.outside import clock

MOST_REFUSALS = 20
"""How often one item may be put off, by 429 and 503, by a service that takes others in between."""


class Asker:
    """
    Args:
        tries: for each item, of requests that the server took.
    """

    def __init__(self, door: Door, slots: Slots, pace: Pace, tries: int) -> None:
        self._door, self._slots, self._pace, self._tries = door, slots, pace, tries
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """Whoever waits for another try gives up; requests on their way go on."""
        self._stopped.set()

    async def ask(self, prepared: Prepared) -> Outcome:
        """
        Raises:
            StoppedError: ``stop`` was called before there was an answer.
            OpsError: no item can be answered: the service is gone, or refuses everybody.
        """
        tries = refusals = 0
        while True:
            async with self._slots.place():
                if not self._door.is_open:
                    reply: Reply | ApiError | None = None
                else:
                    place, began = self._door.endpoint, clock.monotonic()
                    try:
                        reply = await self._door.api.send(prepared.body)
                    except ApiError as error:
                        reply = error
            if reply is None:
                await self._or_stop(self._door.opened())
                continue
            seconds = clock.monotonic() - began
            if isinstance(reply, Reply):
                self._pace.answered(reply.usage.completion_tokens if reply.usage else 1)
                return answered(prepared, reply, seconds, tries + 1)
            verdict = judge(reply)
            if verdict is Verdict.LOST:
                self._door.doubt()
                await self._or_stop(self._door.opened())
                if self._door.endpoint == place:
                    raise reply
                continue
            refused = verdict in (Verdict.AWAY, Verdict.LATER)
            refusals, tries = (refusals + 1, tries) if refused else (refusals, tries + 1)
            if reply.code in STRAIN:
                self._pace.overload()
            if verdict is Verdict.NEVER or tries >= self._tries or refusals > MOST_REFUSALS:
                return failed(prepared, reply, seconds, tries)
            if verdict is not Verdict.AGAIN or reply.code != "bad-answer":
                self._door.doubt(reply.message, reply.retry_after_seconds if refused else None)
            await self._or_stop(asyncio.sleep(wait_seconds(tries + refusals, None if refused else reply.retry_after_seconds)))

    async def _or_stop(self, wait: Coroutine[Any, Any, None]) -> None:
        """
        Raises:
            StoppedError: ``stop`` was called first.
        """
        waiting, stopped = asyncio.create_task(wait), asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait((waiting, stopped), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                waiting.result()
            if self._stopped.is_set():
                raise StoppedError
        finally:
            waiting.cancel()
            stopped.cancel()


def answered(prepared: Prepared, reply: Reply, seconds: float, tries: int) -> Outcome:
    reasoning, answer = (reply.reasoning, reply.answer) if reply.reasoning else split_thinking(reply.answer)
    return Outcome(
        id=prepared.item.id,
        asked=prepared.asked,
        prints=prepared.prints,
        answer=answer,
        reasoning=reasoning,
        finish_reason=reply.finish_reason,
        usage=reply.usage,
        seconds=seconds,
        tries=tries,
    )


def failed(prepared: Prepared, error: ApiError, seconds: float, tries: int) -> Outcome:
    failure = Failure(error.code, error.message, error.status)
    return Outcome(prepared.item.id, prepared.asked, prepared.prints, seconds=seconds, tries=tries, failure=failure)
