"""An API server for many requests at once: one thread, HTTP/1.1, and a script that says how each request is answered.

with serving(script) as server: ...                      in this process
python -m tests.batch.quick_server                       in its own; it prints its port and answers everything at once
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

MODEL = "demo/little-model"
FOLDER = "little-model"
PICTURE = re.compile(rb"data:image/[a-z]+;base64,([^\"]*)")


@dataclass(frozen=True)
class Ask:
    """One chat request. ``number`` counts them from 0, ``try_number`` those with the same body."""

    number: int
    try_number: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def picture(self) -> bytes:
        """Its first picture, in base64."""
        found = PICTURE.search(self.body)
        return found[1] if found else b""


@dataclass(frozen=True)
class Say:
    """``hang``: take the request and never answer. ``cut``: send so many bytes of the answer and hang up. ``pause``: before the answer."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    pause: float = 0.0
    hang: bool = False
    cut: int | None = None
    bit_by_bit: bool = False


Script = Callable[[Ask], Say]


def answer(text: str, *, reasoning: str = "", finish: str = "stop", tokens: int = 5, **how: Any) -> Say:
    message = {"role": "assistant", "content": text, "reasoning": reasoning}
    usage = {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens}
    value = {"id": "c", "model": MODEL, "choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage}
    return Say(body=json.dumps(value).encode(), **how)


def error(status: int, message: str = "no", **headers: str) -> Say:
    body = json.dumps({"error": {"message": message, "type": "X", "param": None, "code": status}}).encode()
    return Say(status, body, tuple((name.replace("_", "-"), value) for name, value in headers.items()))


def by_content(ask: Ask) -> Say:
    """The same picture and prompt always have the same answer."""
    return answer(f"\n\nI see {hashlib.sha256(ask.body).hexdigest()[:12]}")


@dataclass
class QuickServer:
    """``pages`` answers GET by path, as status and body; ``most_at_once`` is how many chat requests it has seen at the same time."""

    script: Script
    pages: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    key: str = ""
    port: int = 0
    asked: int = 0
    at_once: int = 0
    most_at_once: int = 0
    bodies: dict[bytes, int] = field(default_factory=dict)
    looks: list[str] = field(default_factory=list)
    loop: asyncio.AbstractEventLoop | None = None
    server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def begin(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1024, limit=1 << 26)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                line, *fields = head.decode("latin-1").split("\r\n")
                method, path, _ = line.split(" ")
                headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in fields if text)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if not await self._answer(writer, method, path, headers, body):
                    break
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, method: str, path: str, headers: dict[str, str], body: bytes) -> bool:
        if self.key and headers.get("authorization") != f"Bearer {self.key}":
            return await self._send(writer, error(401, "a key is needed"))
        if method == "GET":
            self.looks.append(path)
            status, page = self.pages.get(path, (404, b"{}"))
            return await self._send(writer, Say(status, page))
        digest = hashlib.sha256(body).digest()
        before = self.bodies.get(digest, 0)
        self.bodies[digest] = before + 1
        self.asked += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            said = self.script(Ask(self.asked - 1, before, body))
            if said.hang:
                await asyncio.sleep(3600)
            if said.pause:
                await asyncio.sleep(said.pause)
            return await self._send(writer, said)
        finally:
            self.at_once -= 1

    async def _send(self, writer: asyncio.StreamWriter, said: Say) -> bool:
        lines = [f"HTTP/1.1 {said.status} X", f"content-length: {len(said.body)}", *(f"{name}: {value}" for name, value in said.headers), "", ""]
        data = "\r\n".join(lines).encode() + said.body
        if said.cut is not None:
            writer.write(data[: said.cut])
            await writer.drain()
            return False
        for piece in (data[at : at + 7] for at in range(0, len(data), 7)) if said.bit_by_bit else (data,):
            writer.write(piece)
            await writer.drain()
            if said.bit_by_bit:
                await asyncio.sleep(0.001)
        return True


def models_page(*names: str) -> tuple[int, bytes]:
    return 200, json.dumps({"object": "list", "data": [{"id": name} for name in names]}).encode()


@contextmanager
def serving(script: Script = by_content, *, pages: dict[str, tuple[int, bytes]] | None = None, key: str = "", port: int = 0) -> Iterator[QuickServer]:
    server = QuickServer(script, {"/v1/models": models_page(MODEL)} | (pages or {}), key, port)
    loop = asyncio.new_event_loop()
    server.loop = loop
    loop.run_until_complete(server.begin())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        assert server.server is not None
        server.server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _serve_forever() -> None:
    server = QuickServer(lambda ask: ANSWER, {"/v1/models": models_page(MODEL)})
    await server.begin()
    print(server.port, flush=True)
    assert server.server is not None
    async with server.server:
        await server.server.serve_forever()


ANSWER = answer("A picture of something, told in so many words. " * 4, tokens=40)

if __name__ == "__main__":
    try:
        asyncio.run(_serve_forever())
    except KeyboardInterrupt:
        sys.exit(0)
