"""What the gate keeps of requests that are over: nothing, or a bounded number of records. A leak shows as objects or bytes for each request."""

from __future__ import annotations

import asyncio
import gc
import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.gate import Gate, in_flight
from tests.gate.conftest import KEY, Home

CHAT = "/v1/chat/completions"
ENDS = ("whole", "stream", "500", "raises", "silent", "error in the stream", "the client leaves", "half a body", "no key", "too large", "another route")
RECORDS = 32
WARM, MORE = 40 * len(ENDS), 100 * len(ENDS)
NOISE_BYTES = 40_000
"""Less than 40 bytes for each request more: not even an empty object."""


async def engine(scope: Any, receive: Any, send: Any) -> None:
    end = scope["end"]
    while (await receive()).get("more_body"):
        pass
    if end == "raises":
        raise RuntimeError(end)
    if end in ("silent", "half a body"):
        return
    if end == "the client leaves":
        await receive()
    streamed = "stream" in end
    kind = b"text/event-stream" if streamed else b"application/json"
    await send({"type": "http.response.start", "status": 500 if end == "500" else 200, "headers": [(b"content-type", kind)]})
    pieces = [b'data: {"error": {}}\n\n' if "error" in end else b"data: {}\n\n"] * 4 if streamed else []
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b'{"usage": {"prompt_tokens": 1, "completion_tokens": 2}}'})


async def visit(gate: Gate, number: int) -> None:
    end = ENDS[number % len(ENDS)]
    body = b'{"messages": "request number %d"}' % number
    headers = [(b"content-length", b"999999" if end == "too large" else b"%d" % len(body))]
    headers += [] if end == "no key" else [(b"x-api-key", KEY.encode())]
    scope = {
        "type": "http", "method": "POST", "path": f"/{number}" if end == "another route" else CHAT, "query_string": b"", "headers": headers,
        "client": (f"10.0.{number >> 8 & 255}.{number & 255}", 1), "end": end,
    }  # fmt: skip
    pieces = [{"type": "http.request", "body": body[:9], "more_body": True}]
    pieces += [] if end == "half a body" else [{"type": "http.request", "body": body[9:], "more_body": False}]
    incoming = itertools.chain(pieces, itertools.repeat({"type": "http.disconnect"}))

    async def receive() -> Any:
        await asyncio.sleep(0)
        return next(incoming)

    async def send(message: Any) -> None:
        await asyncio.sleep(0)

    try:
        await gate(scope, receive, send)
    except RuntimeError:
        assert end == "raises"


async def visits(gate: Gate, first: int, count: int) -> None:
    for begin in range(first, first + count, 20):
        await asyncio.gather(*(visit(gate, number) for number in range(begin, begin + 20)))
    assert await asyncio.to_thread(gate._audit.flush, 30)


def test_requests_that_are_over_leave_nothing_behind(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "MOST_LINES", RECORDS)
    folder = home.folder / "in-flight"
    home.with_keys(in_flight=str(folder), poison=str(home.folder / "poison.json"), default_max_tokens=7, rate_limit_per_minute=1_000_000)
    gate = Gate(engine)

    async def grown() -> tuple[int, int]:
        await visits(gate, 0, WARM)
        gc.collect()
        objects, (held, _) = len(gc.get_objects()), tracemalloc.get_traced_memory()
        await visits(gate, WARM, MORE)
        gc.collect()
        return len(gc.get_objects()) - objects, tracemalloc.get_traced_memory()[0] - held

    tracemalloc.start()
    try:
        objects, held = asyncio.run(grown())
    finally:
        tracemalloc.stop()
    assert gate.in_flight == 0 and gate._audit.dropped == 0
    assert objects < MORE / 10, f"{objects} objects more after {MORE} requests"
    assert held < NOISE_BYTES, f"{held} bytes more after {MORE} requests"
    assert size_of_all(folder) <= RECORDS * in_flight.LINE_BYTES


def size_of_all(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())
