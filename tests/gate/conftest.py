"""A gate with its files in a temporary folder, asked directly or over HTTP through uvicorn."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from qwen_fp8_ops.gate import GATE_VARIABLE, Gate, GateConfig

App = Callable[[Any, Any, Any], Awaitable[None]]
KEY = "alices-secret-key"
OTHER_KEY = "bobs-secret-key:with:colons"


@dataclass
class RecordingApp:
    """Reads the whole body, keeps what it was asked, answers ``answer`` in the pieces it was given."""

    status: int = 200
    headers: list[tuple[bytes, bytes]] = field(default_factory=lambda: [(b"content-type", b"application/json")])
    answer: list[bytes] = field(default_factory=lambda: [b'{"ok":true}'])
    scopes: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        self.scopes.append(dict(scope))
        message = await receive()
        body = message.get("body", b"")
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        self.ends.append(message["type"])
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        for number, piece in enumerate(self.answer, 1):
            await send({"type": "http.response.body", "body": piece, "more_body": number < len(self.answer)})

    def header(self, name: bytes) -> bytes | None:
        return dict(self.scopes[-1]["headers"]).get(name)


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    messages: list[dict[str, Any]] = field(default_factory=list)

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json()["error"]
        assert set(found) == {"message", "type", "param", "code"}
        assert found["code"] == self.status
        return found


@dataclass
class Home:
    """The gate's files, written as the supervisor writes them."""

    folder: Path
    config: GateConfig

    @property
    def path(self) -> Path:
        return self.folder / "gate.json"

    def write(self, **changes: Any) -> None:
        self.config = GateConfig(**{**{name: getattr(self.config, name) for name in self.config.__dataclass_fields__}, **changes})
        self.write_text(json.dumps(self.config.as_json()))

    def write_text(self, text: str) -> None:
        temporary = self.folder / "gate.json.new"
        temporary.write_text(text)
        os.replace(temporary, self.path)

    def keys_file(self, text: str = f"alice:{KEY}\nbob:{OTHER_KEY}\n", *, mode: int = 0o600, name: str = "keys") -> Path:
        path = self.folder / name
        path.touch()
        path.chmod(mode)
        path.write_text(text)
        return path

    def new_keys_file(self, text: str, *, mode: int = 0o600) -> Path:
        """Another file in the place of the keys, as a careful person or program changes them."""
        return self.keys_file(text, mode=mode, name="keys.new").rename(self.folder / "keys")

    def with_keys(self, **changes: Any) -> None:
        self.write(keys_files=(str(self.keys_file()),), keys_required=True, **changes)

    def audit(self, gate: Gate) -> list[dict[str, Any]]:
        """The audit's lines once everything so far is written."""
        assert gate._audit.flush(10)
        path = Path(self.config.audit)
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    home = Home(tmp_path, GateConfig(max_body_bytes=100_000, audit=str(tmp_path / "audit.jsonl"), state=str(tmp_path / "state.json")))
    home.write()
    monkeypatch.setenv(GATE_VARIABLE, str(home.path))
    return home


@pytest.fixture
def app() -> RecordingApp:
    return RecordingApp()


Ask = Callable[..., Reply]


@pytest.fixture
def ask() -> Ask:
    """Ask an ASGI app directly. ``body`` may be a list of pieces; after it the client stays, or has left if ``leaves``."""

    def ask(
        gate: App, method: str = "GET", path: str = "/v1/models", *, headers: dict[str, str] | None = None, body: bytes | list[bytes] = b"",
        key: str = "", client: tuple[str, int] | None = ("10.1.2.3", 4711), root_path: str = "", leaves: bool = False,
    ) -> Reply:  # fmt: skip
        pieces = body if isinstance(body, list) else [body]
        given = {**({"authorization": f"Bearer {key}"} if key else {}), **(headers or {})}
        if method == "POST" and isinstance(body, bytes) and "transfer-encoding" not in given:
            given.setdefault("content-length", str(len(body)))
        scope = {
            "type": "http", "method": method, "path": path, "root_path": root_path, "query_string": b"", "client": client,
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given.items()],
        }  # fmt: skip
        incoming = [{"type": "http.request", "body": piece, "more_body": number < len(pieces) or leaves} for number, piece in enumerate(pieces, 1)]
        incoming += [{"type": "http.disconnect"}]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return incoming.pop(0) if incoming else {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        asyncio.run(gate(scope, receive, send))  # type: ignore[arg-type]
        if not sent:
            return Reply(0, {}, b"")
        names = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        assert len(names) == len(sent[0]["headers"]), "a header came twice"
        bodies = [message for message in sent[1:] if message["type"] == "http.response.body"]
        return Reply(sent[0]["status"], names, b"".join(message.get("body", b"") for message in bodies), sent)

    return ask


@dataclass
class Address:
    """Where a test server listens. Connecting works at once: the socket listens before the server accepts."""

    port: int

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def ask(self, method: str, path: str, *, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        connection = self.connection()
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()


@pytest.fixture
def serve() -> Iterator[Callable[[App], Address]]:
    running: list[tuple[uvicorn.Server, threading.Thread, socket.socket]] = []

    def serve(app: App) -> Address:
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none", timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        running.append((server, thread, listener))
        return Address(listener.getsockname()[1])

    yield serve
    for server, thread, listener in running:
        server.should_exit = True
        thread.join(30)
        listener.close()
        assert not thread.is_alive()
