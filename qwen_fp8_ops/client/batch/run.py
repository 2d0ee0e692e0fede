"""One run over all inputs: what is not done yet is prepared, asked and kept.

At any moment there are as many requests on their way as ``pace`` allows, and a few items more are being prepared; everything else
is still on the disk. So memory depends on the concurrency and on the journal's index alone, however many inputs there are.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from qwen_fp8_ops.client.batch.asker import Asker
from qwen_fp8_ops.client.batch.door import Door, Locate
from qwen_fp8_ops.client.batch.item import Inputs, Item, Outcome, Recipe
from qwen_fp8_ops.client.batch.journal import Journal
from qwen_fp8_ops.client.batch.kept import kept
from qwen_fp8_ops.client.batch.pace import MOST, Pace
from qwen_fp8_ops.client.batch.prepare import Prepared, Sending, failed_before, prepare
from qwen_fp8_ops.client.batch.slots import Slots, StoppedError
from qwen_fp8_ops.client.batch.tally import Tally
from qwen_fp8_ops.client.failures import ApiError
from qwen_fp8_ops.client.media_files import MediaError
from qwen_fp8_ops.client.request import DEFAULT_LIMITS, Limits
from qwen_fp8_ops.engine.metrics import parse_metrics
from qwen_fp8_ops.errors import ConfigError, OpsError
from qwen_fp8_ops.outside import clock

TICK_SECONDS = 0.5
PULLED_ITEMS, PULLED_KEPT = 32, 256
MOST_WORKERS = 32
HOPELESS = 100
TIME_TO_FINISH_SECONDS, TIME_TO_PUBLISH_SECONDS = 60.0, 30.0
"""Before the end of our own allocation: no request begins any more; then what is still on its way is given up, as the result must be
written."""


def usual_workers() -> int:
    """Threads that read and encode images: one for each core we may use."""
    return max(2, min(MOST_WORKERS, len(os.sched_getaffinity(0))))


@dataclass(frozen=True)
class RunOptions:
    """
    Args:
        concurrency: requests at once, fixed; None begins with ``start`` and adapts.
        tries: for each item, of requests that the server took.
        retry_failed: ask again what failed in an earlier run.
        patience_seconds: the longest wait for a service that is away.
        ends_at: when our own allocation ends, in seconds of the epoch.
    """

    concurrency: int | None = None
    start: int = 4
    tries: int = 5
    retry_failed: bool = False
    patience_seconds: float = 1800.0
    workers: int = field(default_factory=usual_workers)
    ends_at: float | None = None
    limits: Limits = DEFAULT_LIMITS
    sending: Sending = field(default_factory=Sending)


def carry_out(inputs: Inputs, recipe: Recipe, journal: Journal, locate: Locate, options: RunOptions, tally: Tally, say: Callable[[str], None]) -> None:
    """Do what is not done. Ctrl+C and SIGTERM let the requests on their way come to their end; a second one gives them up.

    Raises:
        OpsError: the run had to end early: the service is gone or refuses everybody, the disk is full. What came before is kept.
    """
    asyncio.run(_run(inputs, recipe, journal, locate, options, tally, say))


async def _run(inputs: Inputs, recipe: Recipe, journal: Journal, locate: Locate, options: RunOptions, tally: Tally, say: Callable[[str], None]) -> None:
    async with Door(locate, limits=options.limits, patience_seconds=options.patience_seconds, say=say) as door:
        run = _Run(inputs, recipe, journal, door, options, tally, say)
        with _signals(run.interrupt):
            await run.go()


class _Run:
    def __init__(
        self,
        inputs: Inputs,
        recipe: Recipe,
        journal: Journal,
        door: Door,
        options: RunOptions,
        tally: Tally,
        say: Callable[[str], None],
    ) -> None:
        self._inputs, self._recipe, self._journal, self._door = inputs, recipe, journal, door
        self._options, self._tally, self._say = options, tally, say
        self._pace = Pace(options.concurrency or max(1, options.start), fixed=options.concurrency is not None, most=MOST)
        self._sending = Slots(self._pace.limit)
        self._spare = max(8, 2 * options.workers)
        self._begun = Slots(self._pace.limit + self._spare)
        self._asker = Asker(door, self._sending, self._pace, options.tries)
        self._pool = ThreadPoolExecutor(options.workers, "prepare")
        self._feeder = ThreadPoolExecutor(1, "feed")
        self._error: OpsError | None = None
        self._counted: int | None = None
        self._stopping = self._given_up = False
        self._tells_waiting = True
        self._main: asyncio.Task[None] | None = None

    async def go(self) -> None:
        ticker = asyncio.create_task(self._tick())
        # A thread that nobody waits for: to count a large folder may take longer than the person who interrupts us.
        threading.Thread(target=self._count, name="count", daemon=True).start()
        self._main = asyncio.current_task()
        self._pace.begin(clock.monotonic())
        try:
            await self._feed()
        except asyncio.CancelledError:
            if not self._tally.interrupted:
                raise
        finally:
            self._stopping = True
            ticker.cancel()
            await asyncio.gather(ticker, return_exceptions=True)
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._feeder.shutdown(wait=False, cancel_futures=True)
            self._show()
            self._tally.in_flight, self._tally.waits_for, self._tally.ended = 0, "", clock.monotonic()
            await asyncio.to_thread(self._journal.sync)
        if self._error:
            raise self._error

    def interrupt(self) -> None:
        if self._stopping and self._tally.interrupted:
            self._give_up()
            return
        self._tally.interrupted = True
        self._say(f"Stopping: {self._sending.taken} requests are on their way and are waited for. Ctrl+C again gives them up.")
        self._stop()

    def _give_up(self) -> None:
        """Once: a second time would hit what saves the rest."""
        if self._main and not self._given_up:
            self._given_up = self._tally.interrupted = True
            self._main.cancel()

    def _mind_the_end(self, seconds_left: float) -> None:
        if seconds_left < TIME_TO_FINISH_SECONDS and not self._stopping:
            self._tally.interrupted = True
            self._say("Stopping: this job's time is nearly over.")
            self._stop()
        if seconds_left < TIME_TO_PUBLISH_SECONDS and not self._given_up:
            self._say(f"Giving up {self._sending.taken} requests that are still on their way: this job's time is over.")
            self._give_up()

    def _stop(self) -> None:
        """No request begins any more."""
        self._stopping = True
        self._sending.stop()
        self._begun.stop()
        self._asker.stop()

    def _abort(self, error: OpsError) -> None:
        self._error = self._error or error
        self._stop()

    async def _feed(self) -> None:
        source, loop = iter(self._inputs), asyncio.get_running_loop()
        over = False
        async with asyncio.TaskGroup() as group:
            while not over and not self._stopping:
                try:
                    items, done, over = await loop.run_in_executor(self._feeder, self._pull, source)
                except OpsError as error:
                    self._abort(error)
                    return
                for outcome in done:
                    self._tally.keep(outcome)
                for item in items:
                    try:
                        await self._begun.take()
                    except StoppedError:
                        return
                    group.create_task(self._do(item))
        if not self._stopping:
            self._tally.total = self._tally.done  # now it is known for certain

    def _pull(self, source: Iterator[Item]) -> tuple[list[Item], list[Outcome], bool]:
        """The next items that are to be done, the outcomes of those passed over, and whether there are no more."""
        items: list[Item] = []
        done: list[Outcome] = []
        while len(items) < PULLED_ITEMS and len(done) < PULLED_KEPT:
            item = next(source, None)
            if item is None:
                return items, done, True
            outcome = kept(self._journal, self._recipe, item, retry_failed=self._options.retry_failed)
            if outcome is None:
                items.append(item)
            else:
                done.append(outcome)
        return items, done, False

    async def _do(self, item: Item) -> None:
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._pool, self._prepare, item)
            outcome = await self._asker.ask(found) if isinstance(found, Prepared) else found
            self._journal.append(outcome)
            self._tally.add(outcome)
            self._refuse_hopeless(outcome)
        except StoppedError:
            pass  # it stays undone, and the next run does it
        except OpsError as error:
            self._abort(error)
        finally:
            self._begun.free()

    def _refuse_hopeless(self, outcome: Outcome) -> None:
        """
        Raises:
            OpsError: the service refused the very first requests, all of them and for the same reason: so it is not the items.
        """
        tally = self._tally
        if outcome.failure and outcome.failure.status and tally.failed >= HOPELESS and not tally.answered and len(tally.problems) == 1:
            raise OpsError(
                f"All of the first {tally.failed} requests failed alike: {outcome.failure.message}",
                code="all-failed",
                fix="Change what they have in common (--max-tokens, --model, ...). When it is mended, --retry-failed asks for these again.",
            )

    def _prepare(self, item: Item) -> Prepared | Outcome:
        try:
            return prepare(item, self._recipe, self._options.sending)
        except (MediaError, ConfigError) as error:
            return failed_before(item, self._recipe, error)

    def _count(self) -> None:
        try:
            self._counted = self._inputs.count()
        except OpsError:
            pass  # the run itself comes to the same trouble, and tells it

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await asyncio.to_thread(self._journal.sync)
            except OpsError as error:
                self._abort(error)
            await self._adapt()
            self._show()
            if self._options.ends_at is not None:
                self._mind_the_end(self._options.ends_at - time.time())

    def _show(self) -> None:
        """In the tally, which a screen reads."""
        tally = self._tally
        tally.in_flight, tally.limit, tally.waits_for = self._sending.taken, self._pace.limit, self._door.waits_for
        # What was counted is a forecast: inputs may come and go meanwhile. What was gone through to its end is known.
        tally.total = self._counted if tally.total is None else tally.total

    async def _adapt(self) -> None:
        now = clock.monotonic()
        if not self._door.is_open or not self._pace.is_over(now):
            return
        waiting = await self._waiting()
        self._pace.close(now, full=self._sending.was_full, waiting=waiting)
        self._sending.was_full = False
        self._sending.limit = self._pace.limit
        self._begun.limit = self._pace.limit + self._spare

    async def _waiting(self) -> int | None:
        """Requests that the server has put off, where it is vLLM and tells."""
        if not self._tells_waiting:
            return None
        try:
            status, body = await self._door.api.peek("/metrics")
        except ApiError:
            return None
        self._tells_waiting = status == 200 and b"vllm:num_requests_waiting" in body
        return parse_metrics(body.decode("utf-8", "replace")).waiting if self._tells_waiting else None


@contextmanager
def _signals(act: Callable[[], None]) -> Iterator[None]:
    """Within it, SIGINT and SIGTERM call ``act``, where signals can be handled at all."""
    handled = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    loop = asyncio.get_running_loop()
    for number in handled:
        loop.add_signal_handler(number, act)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
