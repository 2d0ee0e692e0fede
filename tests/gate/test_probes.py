"""The supervisor's own questions: answered like any, counted as nobody's."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from typing import Any

import pytest

from qwen_fp8_ops.gate import Gate
from qwen_fp8_ops.gate.in_flight import recorded
from qwen_fp8_ops.gate.poison import Refused
from tests.gate.conftest import KEY, Ask, Home, RecordingApp

CHAT = "/v1/chat/completions"
PROBE = {"X-Service-Probe": "1"}


@pytest.fixture
def known(home: Home) -> Home:
    home.keys_file(f"supervisor:{KEY}\nalice:alices-own-key-0123456789\n")
    home.write(keys_files=(str(home.folder / "keys"),), keys_required=True, in_flight=str(home.folder / "in-flight"), poison=str(home.folder / "poison.json"))
    return home


class Watching(RecordingApp):
    """Looks at the gate while a request runs."""

    gate: Gate
    seen: list[tuple[int, int]]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def look() -> Any:
            message = await receive()
            self.seen.append((self.gate.in_flight, len(recorded(self.home.folder / "in-flight", os.getsid(0), since=0))))
            return message

        await super().__call__(scope, look, send)

    def __init__(self, home: Home) -> None:
        super().__init__()
        self.home, self.seen = home, []
        self.gate = Gate(self)


def test_a_probe_is_neither_counted_nor_recorded_nor_audited_nor_limited(known: Home, ask: Ask) -> None:
    known.write(rate_limit_per_minute=1)
    app = Watching(known)
    for _ in range(3):
        assert ask(app.gate, "POST", CHAT, body=b"{}", key=KEY, headers=PROBE).status == 200
    assert app.seen == [(0, 0)] * 3
    assert known.audit(app.gate) == []


def test_the_mark_alone_makes_no_probe(known: Home, ask: Ask) -> None:
    known.write(rate_limit_per_minute=1)
    app = Watching(known)
    for who, status in (("alices-own-key-0123456789", 200), ("alices-own-key-0123456789", 429), ("", 401)):
        assert ask(app.gate, "POST", CHAT, body=b"{}", key=who, headers=PROBE).status == status
    assert app.seen == [(1, 1)]
    assert len(known.audit(app.gate)) == 3


@pytest.mark.parametrize("from_the_start", [True, False])
def test_nobody_becomes_the_supervisor_by_a_name(known: Home, ask: Ask, from_the_start: bool) -> None:
    clients = known.folder / "api_keys"
    text = "supervisor:mallorys-own-key-0123\n" if from_the_start else "mallory:mallorys-own-key-0123\n"
    clients.touch(mode=0o600)
    clients.write_text(text)
    known.write(keys_files=(str(known.folder / "keys"), str(clients)), rate_limit_per_minute=1)
    app = Watching(known)
    who = {"key": "mallorys-own-key-0123", "headers": PROBE}
    first = ask(app.gate, "POST", CHAT, body=b"{}", **who).status
    assert first == (401 if from_the_start else 200)
    known.keys_file("supervisor:mallorys-own-key-0123\n", name="fresh").rename(clients)
    ask(app.gate, path="/service", key=KEY)  # looks at the files at once
    assert ask(app.gate, "POST", CHAT, body=b"{}", **who).status == (401 if from_the_start else 429), "what was read before stays in force"
    assert {line["who"] for line in known.audit(app.gate) if line["route"] == CHAT} == {None if from_the_start else "mallory"}
    assert ask(app.gate, "POST", CHAT, body=b"{}", key=KEY, headers=PROBE).status == 200


def test_the_supervisors_other_requests_are_load(known: Home, ask: Ask) -> None:
    app = Watching(known)
    assert ask(app.gate, "POST", CHAT, body=b"{}", key=KEY).status == 200
    assert app.seen == [(1, 1)]
    assert len(known.audit(app.gate)) == 1


@pytest.mark.parametrize("body", [b'{"messages": []}', [b'{"messages"', b": []}"]], ids=["at once", "in pieces"])
@pytest.mark.parametrize("default_max_tokens", [0, 100])
def test_poison_never_reaches_the_engine(known: Home, ask: Ask, body: Any, default_max_tokens: int) -> None:
    whole = body if isinstance(body, bytes) else b"".join(body)
    row = Refused("ab12", hashlib.sha256(whole).hexdigest(), len(whole), 0, "2026-11-21T10:00:00Z", "2026-11-21T11:00:00Z", "2999-01-01T00:00:00Z")
    (known.folder / "poison.json").write_text(json.dumps({"schema": 1, "refused": [row.as_json()]}))
    known.write(default_max_tokens=default_max_tokens)
    app = RecordingApp()
    gate = Gate(app)
    reply = ask(gate, "POST", CHAT, body=body, key=KEY)
    assert reply.status == 422
    assert "ab12" in reply.error["message"]
    assert all(end == "http.disconnect" for end in app.ends), "the app may have begun to read, and was told that the client is gone"
    assert [line["status"] for line in known.audit(gate)] == [422]
    assert gate.in_flight == 0
    assert ask(gate, "POST", CHAT, body=whole + b" ", key=KEY).status == 200


@pytest.mark.parametrize(
    ("status", "headers", "pieces", "kept"),
    [
        (200, [], [b'{"ok": true}'], 0),
        (400, [], [b'{"error": {}}'], 0),
        (500, [], [b'{"error": {}}'], 1),
        (200, [(b"content-type", b"text/event-stream")], [b'data: {"error": {"code": 500}}\n\n', b"data: [DONE]\n\n"], 1),
        (200, [(b"content-type", b"text/event-stream")], [b'data: {"text": "an \\"error\\" it says"}\n\n', b"data: [DONE]\n\n"], 0),
    ],
)
def test_only_what_the_engine_failed_stays_on_record(known: Home, ask: Ask, status: int, headers: Any, pieces: list[bytes], kept: int) -> None:
    app = RecordingApp(status=status, headers=headers, answer=pieces)
    ask(Gate(app), "POST", CHAT, body=b"{}", key=KEY)
    assert len(recorded(known.folder / "in-flight", os.getsid(0), since=0)) == kept


def test_a_client_that_left_while_the_engine_had_its_request_leaves_it_on_record(known: Home, ask: Ask) -> None:
    async def too_late(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"null"})

    ask(Gate(too_late), "POST", CHAT, body=b"{}", key=KEY)
    assert len(recorded(known.folder / "in-flight", os.getsid(0), since=0)) == 1


def test_a_request_that_the_servers_end_cuts_off_is_on_record_as_a_failure_of_ours(known: Home) -> None:
    begun = asyncio.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        begun.set()
        await asyncio.Event().wait()

    gate = Gate(endless)

    async def cut_off() -> None:
        message = {"type": "http.request", "body": b"{}", "more_body": False}
        scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [(b"x-api-key", KEY.encode())]}
        task = asyncio.ensure_future(gate(scope, lambda: asyncio.sleep(0, message), lambda message: asyncio.sleep(0)))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cut_off())
    assert [(line["status"], line["finished"]) for line in known.audit(gate)] == [(500, False)]
    assert len(recorded(known.folder / "in-flight", os.getsid(0), since=0)) == 1


def test_an_app_that_raises_leaves_its_request_on_record(known: Home) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("the engine is dead")

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None: ...

    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [(b"x-api-key", KEY.encode())], "client": None}
    with pytest.raises(RuntimeError):
        asyncio.run(Gate(fails)(scope, receive, send))
    assert len(recorded(known.folder / "in-flight", os.getsid(0), since=0)) == 1
