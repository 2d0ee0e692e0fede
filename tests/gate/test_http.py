"""Through a real server: uvicorn, as vLLM runs it, around the plain test app or around Starlette with its own middleware."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from qwen_fp8_ops.gate import GATE_VARIABLE, Gate, visit

CHAT = "/v1/chat/completions"
KEY = "alices-secret-key"
JSON = {"content-type": "application/json"}


class Engine:
    """A Starlette app that streams on command, and the gate that Starlette built around it as vLLM has it do."""

    def __init__(self) -> None:
        self.step = asyncio.Semaphore(0)
        self.loop: asyncio.AbstractEventLoop
        self.ended = threading.Event()
        self.gates: list[Gate] = []
        self.app = Starlette(
            routes=[
                Route(CHAT, self.chat, methods=["POST"]),
                Route("/v1/completions", self.fail, methods=["POST"]),
                Route("/invocations", self.chat, methods=["POST"]),
            ],
            middleware=[Middleware(self.gate), Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])],
        )

    def gate(self, app: Any) -> Gate:
        self.gates.append(Gate(app))
        return self.gates[-1]

    def go_on(self) -> None:
        self.loop.call_soon_threadsafe(self.step.release)

    async def chat(self, request: Request) -> Any:
        value = await request.json()
        if not value.get("stream"):
            return JSONResponse(value)
        self.loop = asyncio.get_running_loop()

        async def pieces() -> AsyncIterator[bytes]:
            try:
                for number in range(value["stream"]):
                    yield b"data: %d\n\n" % number
                    await self.step.acquire()
            finally:
                self.ended.set()

        return StreamingResponse(pieces(), media_type="text/event-stream")

    async def fail(self, request: Request) -> Any:
        raise ZeroDivisionError("a secret detail")


def begin(address: Any, body: dict[str, Any]) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = address.connection()
    connection.request("POST", CHAT, json.dumps(body), JSON)
    return connection, connection.getresponse()


def test_a_stream_runs_on_piece_by_piece_while_the_service_drains(home: Any, serve: Any) -> None:
    engine = Engine()
    address = serve(engine.app)
    connection, answer = begin(address, {"stream": 3})
    assert answer.status == 200
    assert answer.getheader("content-type") == "text/event-stream; charset=utf-8"
    assert answer.read1() == b"data: 0\n\n", "the first piece is here before the second one exists"
    home.write(draining=True)
    told = address.ask("GET", "/service").json()["gate"]
    assert (told["draining"], told["in_flight"]) == (True, 1)
    assert address.ask("POST", CHAT, body="{}", headers=JSON).status == 503
    engine.go_on()
    assert answer.read1() == b"data: 1\n\n"
    engine.go_on()
    assert answer.read1() == b"data: 2\n\n"
    engine.go_on()
    assert answer.read() == b""
    connection.close()
    assert engine.ended.wait(30)
    # The stream's end is sent before it is counted out; the next request comes after both.
    assert address.ask("GET", "/service").json()["gate"]["in_flight"] == 0
    streamed = [line for line in home.audit(engine.gates[0]) if line["streamed"]]
    assert [(line["status"], line["finished"], line["bytes_out"]) for line in streamed] == [(200, True, 27)]


def test_a_client_that_leaves_a_stream_ends_it_and_is_counted_out(home: Any, serve: Any) -> None:
    engine = Engine()
    address = serve(engine.app)
    connection, answer = begin(address, {"stream": 100})
    assert answer.read1() == b"data: 0\n\n"
    answer.close()
    connection.close()
    assert engine.ended.wait(30)
    while address.ask("GET", "/service").json()["gate"]["in_flight"]:
        pass
    line = next(line for line in home.audit(engine.gates[0]) if line["route"] == CHAT)
    assert (line["status"], line["finished"], line["streamed"]) == (200, False, True)


def test_starlette_gets_the_default_and_answers_preflights_itself(home: Any, serve: Any) -> None:
    home.with_keys(default_max_tokens=99)
    address = serve(Engine().app)
    reply = address.ask("POST", CHAT, body='{"a": 1}', headers={**JSON, "Authorization": f"Bearer {KEY}"})
    assert reply.json() == {"max_tokens": 99, "a": 1}
    assert len(reply.headers["x-request-id"]) == 24
    preflight = address.ask(
        "OPTIONS", CHAT, headers={"Origin": "http://a", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    )
    assert preflight.status == 200
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert address.ask("POST", "/invocations", body="{}", headers=JSON).status == 404


def test_no_traceback_reaches_a_client(home: Any, serve: Any) -> None:
    engine = Engine()
    address = serve(engine.app)
    reply = address.ask("POST", "/v1/completions", body="{}", headers=JSON)
    assert reply.status == 500
    assert b"Traceback" not in reply.body
    assert b"secret" not in reply.body
    assert [(line["status"], line["finished"]) for line in home.audit(engine.gates[0])] == [(500, False)]
    assert engine.gates[0].in_flight == 0


SERVER = """
import uvicorn
from starlette.applications import Starlette
from qwen_fp8_ops.gate import Gate
app = Starlette()
app.add_middleware(Gate)
uvicorn.Server(uvicorn.Config(app, port=0)).run()
"""


@pytest.mark.parametrize("named", [False, True])
def test_a_server_whose_gate_has_no_configuration_does_not_start(home: Any, named: bool) -> None:
    home.path.unlink()
    environment = {name: value for name, value in os.environ.items() if named or name != GATE_VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", SERVER], env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert (str(home.path) if named else GATE_VARIABLE) in done.stderr
    assert "Application startup complete" not in done.stderr


# Bodies ------------------------------------------------------------------------------------------------------------------------


def read_all(client: socket.socket) -> bytes:
    data = b""
    while piece := client.recv(65536):
        data += piece
    return data


def test_a_client_that_sends_everything_first_still_reads_why_it_was_refused(home: Any, app: Any, serve: Any) -> None:
    gate = Gate(app)
    address = serve(gate)
    body = b"x" * 8_000_000
    with address.connect() as client:
        client.sendall(b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (CHAT.encode(), len(body)))
        client.sendall(body)
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer
    assert b"RequestTooLargeError" in answer
    assert app.scopes == []


def test_a_chunked_body_without_end_is_cut(home: Any, app: Any, serve: Any) -> None:
    gate = Gate(app)
    address = serve(gate)
    with address.connect() as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(30):
            client.sendall(b"2710\r\n" + b"y" * 10_000 + b"\r\n")
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413 ")
        client.sendall(b"0\r\n\r\n")
        assert b"RequestTooLargeError" in answer + read_all(client)
    assert address.ask("GET", "/service").json()["gate"]["in_flight"] == 0
    assert home.audit(gate)[0]["status"] == 413


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_a_body_that_drips_is_given_up(home: Any, app: Any, serve: Any, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(visit, "BODY_SECONDS", 0.3)
    home.write(default_max_tokens=9)
    gate = Gate(app)
    address = serve(gate)
    with address.connect() as client:
        client.sendall(b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n " % path.encode())
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer
    line = home.audit(gate)[0]
    assert (line["status"], line["bytes_in"]) == (408, 1)
    assert gate.in_flight == 0


def test_a_slow_body_in_many_pieces_arrives(home: Any, app: Any, serve: Any) -> None:
    home.write(default_max_tokens=9)
    gate = Gate(app)
    address = serve(gate)
    body = b' \n{ "messages": [] }'
    with address.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(b"POST %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % (CHAT.encode(), len(body)))
        for number in range(len(body)):
            client.sendall(body[number : number + 1])
            address.ask("GET", "/health")
        assert read_all(client).startswith(b"HTTP/1.1 200 ")
    assert [json.loads(body) for body in app.bodies if body] == [{"max_tokens": 9, "messages": []}]


def test_a_client_that_asks_first_is_refused_before_it_sends(home: Any, app: Any, serve: Any) -> None:
    home.with_keys()
    address = serve(Gate(app))
    with address.connect() as client:
        client.sendall(b"POST %s HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 50\r\n\r\n" % CHAT.encode())
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 401 ")


def test_a_refused_connection_with_a_small_body_goes_on(home: Any, app: Any, serve: Any) -> None:
    home.with_keys()
    address = serve(Gate(app))
    connection = address.connection()
    seen = []
    for key in ("wrong-wrong", KEY, "wrong-wrong", KEY):
        connection.request("POST", CHAT, b'{"a": "' + b"x" * 20_000 + b'"}', {**JSON, "X-API-Key": key})
        answer = connection.getresponse()
        seen.append((answer.status, answer.getheader("connection")))
        answer.read()
        assert connection.sock is not None, "kept alive"
    connection.close()
    assert seen == [(401, None), (200, None)] * 2


def test_many_at_once_are_all_counted_in_and_out(home: Any, app: Any, serve: Any) -> None:
    home.with_keys(default_max_tokens=9)
    gate = Gate(app)
    address = serve(gate)

    def work(key: str) -> None:
        connection = address.connection()
        for _ in range(25):
            connection.request("POST", CHAT, b'{"messages": []}', {**JSON, "X-API-Key": key})
            connection.getresponse().read()
        connection.close()

    threads = [threading.Thread(target=work, args=(key,)) for key in [KEY, "wrong-wrong"] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (gate.in_flight, gate.requests_total) == (0, 200)
    found = home.audit(gate)
    assert [sum(line["status"] == status for line in found) for status in (200, 401)] == [100, 100]
    assert len({line["id"] for line in found}) == 200
    assert all(json.loads(body) == {"max_tokens": 9, "messages": []} for body in app.bodies)
