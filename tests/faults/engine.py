"""An engine as vLLM's processes make one, without a model: an API server with the real gate, its core, and a worker of the core.

    python engine.py PORT BEHAVIOUR.json

What faults need of it is true to vLLM: it listens once the core is ready; the core alone does the work, so a frozen core leaves
/health at 200; when the core dies, clients are told and the API server ends; SIGTERM lets requests finish. Core and worker hold
shared memory, and the core has a socket in the temporary folder. Media is fetched by the gate's own rules.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

os.environ.pop("VLLM_MEDIA_CONNECTOR", None)  # there is no vLLM here to fetch media for

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from qwen_fp8_ops.gate import Gate

CORE = Path(__file__).with_name("engine_core.py")
DRAIN_SECONDS = 5
DYING_SECONDS = 0.2
FETCH_SECONDS = 3.0
FETCH_BYTES = 1_000_000


class DeadCoreError(Exception):
    """As vLLM's EngineDeadError."""


class Core:
    """The child that does the work, by one JSON line for each thing that is asked or told."""

    def __init__(self, behaviour: Path) -> None:
        self.process = subprocess.Popen([sys.executable, str(CORE), str(behaviour)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.dead = False
        self.pieces = 0
        self.waiting: dict[int, asyncio.Queue[Any]] = {}
        self.number = 0

    async def listen(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), self.process.stdout)
        self.reader = reader
        if not await reader.readline():
            sys.exit("RuntimeError: Engine core initialization failed. See root cause above.")

    async def hear(self, on_death: Any) -> None:
        while line := await self.reader.readline():
            told = json.loads(line)
            self.pieces += 1
            if told["number"] in self.waiting:
                self.waiting[told["number"]].put_nowait(told["piece"])
        self.dead = True
        for queue in self.waiting.values():
            queue.put_nowait(None)
        on_death()

    async def pieces_of(self, body: dict[str, Any]) -> AsyncIterator[int]:
        """
        Raises:
            DeadCoreError: it died before it had told all.
        """
        self.number += 1
        number, queue = self.number, asyncio.Queue[Any]()
        self.waiting[number] = queue
        try:
            count = int(body.get("pieces", 1))
            line = json.dumps({"number": number, "pieces": count, "seconds": body.get("seconds", 0)}).encode() + b"\n"
            if self.dead or not self._say(line):
                raise DeadCoreError
            for _ in range(count):
                piece = await queue.get()
                if piece is None:
                    raise DeadCoreError
                yield piece
        finally:
            del self.waiting[number]

    def _say(self, line: bytes) -> bool:
        assert self.process.stdin
        try:
            os.write(self.process.stdin.fileno(), line)
        except OSError:
            return False
        return True

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Server(uvicorn.Server):
    """SIGTERM ends it after the requests, and does not end the process: the core is ended after it."""

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.handle_exit, number, None)

    def capture_signals(self) -> Any:
        import contextlib

        return contextlib.nullcontext()


class Engine:
    def __init__(self, core: Core) -> None:
        self.core = core

    async def health(self, request: Request) -> Response:
        return PlainTextResponse("", 503 if self.core.dead else 200)

    async def metrics(self, request: Request) -> Response:
        numbers = {"num_requests_running": len(self.core.waiting), "generation_tokens_total": self.core.pieces}
        return PlainTextResponse("".join(f'vllm:{name}{{engine="0"}} {value}\n' for name, value in numbers.items()))

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        problem = await fetch_media(body["messages"][0]["content"])
        if problem:
            return JSONResponse({"error": {"message": problem}}, 400)
        if body.get("stream"):
            return StreamingResponse(self.events(body), media_type="text/event-stream")
        try:
            pieces = [piece async for piece in self.core.pieces_of(body)]
        except DeadCoreError:
            return JSONResponse({"error": {"message": "EngineCore encountered an issue."}}, 500)
        usage = {"prompt_tokens": 9, "completion_tokens": len(pieces)}
        return JSONResponse({"id": body.get("id"), "choices": [{"pieces": pieces}], "usage": usage})

    async def events(self, body: dict[str, Any]) -> AsyncIterator[str]:
        try:
            async for piece in self.core.pieces_of(body):
                yield f"data: {json.dumps({'id': body.get('id'), 'piece': piece})}\n\n"
        except DeadCoreError:
            yield 'data: {"error": {"message": "EngineCore encountered an issue."}}\n\n'
        yield "data: [DONE]\n\n"


async def fetch_media(content: Any) -> str:
    """Fetch what the message names, as the gate's connector does for vLLM; why that failed, or nothing."""
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"] if isinstance(content, list) else []
    if not urls:
        return ""
    from qwen_fp8_ops.gate.config import read_config
    from qwen_fp8_ops.gate.fetch import FetchError, MediaFetcher
    from qwen_fp8_ops.gate.fetch_answer import Wanted

    fetcher = MediaFetcher(read_config(Path(os.environ["QWEN_FP8_GATE"])).media)
    try:
        for url in urls:
            await fetcher.fetch(url, Wanted("image", FETCH_BYTES, FETCH_SECONDS))
    except FetchError as error:
        return str(error)
    return ""


async def main(port: int, behaviour: Path) -> int:
    core = Core(behaviour)
    await core.listen()
    engine = Engine(core)
    routes = [
        Route("/health", engine.health),
        Route("/metrics", engine.metrics),
        Route("/v1/models", lambda request: JSONResponse({"data": []})),
        Route("/v1/chat/completions", engine.chat, methods=["POST"]),
    ]
    config = uvicorn.Config(
        Starlette(routes=routes, middleware=[Middleware(Gate)]), host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=DRAIN_SECONDS
    )
    server = Server(config)
    server.install()

    def core_died() -> None:
        if not server.should_exit:
            print("EngineCore encountered a fatal error.", flush=True)
        asyncio.get_running_loop().call_later(DYING_SECONDS, server.handle_exit, signal.SIGTERM, None)

    heard = asyncio.create_task(core.hear(core_died))
    await server.serve()
    died = core.dead
    heard.cancel()
    core.end()
    return 1 if died else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]))))
