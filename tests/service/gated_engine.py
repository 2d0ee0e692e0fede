"""An engine's API server as far as the gate sees one: the real gate inside a real uvicorn, around an app that dies of one prompt.

    python gated_engine.py PORT BEHAVIOUR.json

As vLLM's does when its engine core dies, it first answers 500 to everything that runs, and then ends. It takes requests as soon as it
listens, though /health may say that it is not ready.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import uvicorn

os.environ.pop("VLLM_MEDIA_CONNECTOR", None)  # there is no vLLM here to fetch media for
from qwen_fp8_ops.gate import Gate

BEHAVIOUR = Path(sys.argv[2])


class Engine:
    def __init__(self) -> None:
        self.dead = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
        elif scope["path"] == "/v1/chat/completions":
            await answer(send, await self.chat(await whole_body(receive)))
        else:
            await answer(send, 503 if scope["path"] == "/health" and told("never_ready") else 200)

    async def chat(self, body: bytes) -> int:
        """The poison kills it; a bystander is what takes long; everything else is answered."""
        prompt = json.loads(body)["messages"][0]["content"]
        if prompt == "poison":
            asyncio.get_running_loop().call_later(0.5, self.die)
        if prompt in ("poison", "bystander"):
            await self.dead.wait()
        return 500 if self.dead.is_set() else 200

    def die(self) -> None:
        if told("at_once"):
            os._exit(1)
        self.dead.set()
        asyncio.get_running_loop().call_later(0.5, os._exit, 1)


def told(what: str) -> bool:
    return bool(json.loads(BEHAVIOUR.read_text()).get(what))


async def whole_body(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


async def answer(send: Any, status: int) -> None:
    body = b'{"usage": {"prompt_tokens": 9, "completion_tokens": 1}}'
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


uvicorn.run(Gate(Engine()), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
