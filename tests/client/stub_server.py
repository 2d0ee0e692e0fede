"""A small HTTP server that speaks as vLLM's API does, in a thread, on a free port; each test tells it how to answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "qwen3-vl-fp8"
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StubServer

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        if self.server.deaf:
            self.server.script(self)
            return
        self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def _answer(self, body: Any) -> None:
        self.request_body = body
        self.server.requests.append(Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        self.server.script(self)

    def give(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def give_json(self, value: Any, status: int = 200, **headers: str) -> None:
        self.give(status, json.dumps(value).encode(), Content_Type="application/json", **headers)

    def give_error(self, status: int, message: str, kind: str = "BadRequestError", param: str | None = None, **headers: str) -> None:
        self.give_json({"error": {"message": message, "type": kind, "param": param, "code": status}}, status, **headers)

    def begin_stream(self, content_type: str = "text/event-stream; charset=utf-8") -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("X-Request-Id", "request-1")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Drop the connection where it stands."""
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


@dataclass
class StubServer(ThreadingHTTPServer):
    """``script`` answers each request; ``deaf`` leaves the body of a POST unread. ``gone`` is set when a client left in the middle."""

    script: Callable[[Handler], None]
    deaf: bool = False
    requests: list[Request] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)
    streaming: threading.Event = field(default_factory=threading.Event)
    daemon_threads = True

    def __post_init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)

    __hash__ = object.__hash__

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is no news."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def asked(self) -> Any:
        """Body of the latest chat request."""
        return [request.body for request in self.requests if request.method == "POST"][-1]


@contextmanager
def serving(script: Callable[[Handler], None] | None = None, *, deaf: bool = False) -> Iterator[StubServer]:
    server = StubServer(script or like_vllm, deaf)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, usage: dict[str, int] | None = None) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": MODEL, "choices": choices, "usage": usage}


def event(value: Any) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()) + b"\n\n"


def stream_of(reasoning: str, answer: str, finish: str = "stop") -> list[bytes]:
    """The events of one streamed answer, as vLLM sends them: a piece a word."""
    words = [chunk({"role": "assistant", "content": ""})]
    words += [chunk({"reasoning": word}) for word in reasoning.split(" ")] if reasoning else []
    pieces = answer.split(" ")
    words += [chunk({"content": word if number == 0 else f" {word}"}) for number, word in enumerate(pieces)] if answer else []
    return [event(value) for value in (*words, chunk({}, finish), chunk(usage=USAGE))] + [event(b"[DONE]")]


def whole(reasoning: str, answer: str, finish: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": answer, "reasoning": reasoning, "tool_calls": []}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": MODEL, "choices": [choice], "usage": USAGE}


def last_text(body: Any) -> str:
    content = body["messages"][-1]["content"]
    return str(content if isinstance(content, str) else content[-1]["text"])


def like_vllm(handler: Handler) -> None:
    """Lists its model, and answers each question with what it was asked, after a thought."""
    body = handler.request_body
    if handler.path == "/v1/models":
        handler.give_json({"object": "list", "data": [{"id": MODEL, "object": "model"}]})
    elif handler.path != "/v1/chat/completions":
        handler.give_json({"detail": "Not Found"}, 404)
    elif body.get("model", MODEL) != MODEL:
        handler.give_error(404, f"The model `{body['model']}` does not exist.", "NotFoundError", "model")
    elif body["stream"]:
        handler.begin_stream()
        for data in stream_of("hmm", f"\n\nYou said: {last_text(body)}"):
            handler.send_chunk(data)
        handler.end_stream()
    else:
        handler.give_json(whole("hmm", f"\n\nYou said: {last_text(body)}"), X_Request_Id="request-1")


def without_end(handler: Handler) -> None:
    """Streams one word after the other until the client leaves."""
    handler.begin_stream()
    try:
        while True:
            handler.send_chunk(event(chunk({"content": "on "})))
            handler.server.streaming.set()
            if handler.server.gone.wait(0.005):
                return
    except OSError:
        handler.server.gone.set()
        handler.cut()


def silent(handler: Handler) -> None:
    """Takes the request and says nothing until the client leaves."""
    handler.server.streaming.set()
    if not handler.connection.recv(1):
        handler.server.gone.set()
    handler.cut()
