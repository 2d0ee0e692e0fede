"""Small requests to servers that answer well, badly, slowly, without end, or not at all."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_fp8_ops.outside import http
from qwen_fp8_ops.outside.media_health import SERVICE, MediaHealth, health
from tests.ports import free_port

SHORT = 0.5
LONG = 60.0

Talk = Callable[[socket.socket, threading.Event], None]


@contextmanager
def server(talk: Talk) -> Iterator[tuple[str, list[bytes]]]:
    """Serves one connection after the other: reads the request, then ``talk`` has the socket. Gives the URL and the requests."""
    closed, requests = threading.Event(), list[bytes]()

    def serve() -> None:
        while True:
            connection, _ = listening.accept()
            with connection:
                if closed.is_set():
                    return
                requests.append(request(connection))
                try:
                    talk(connection, closed)
                except OSError:
                    pass  # the client hung up

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", requests
        finally:
            closed.set()
            socket.create_connection(listening.getsockname()).close()
            thread.join()


def request(connection: socket.socket) -> bytes:
    """One whole request, head and body."""
    text = b""
    while piece := connection.recv(65536):
        text += piece
        head, end, body = text.partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        if end and len(body) >= (int(length[1]) if length else 0):
            break
    return text


def says(*pieces: bytes) -> Talk:
    def talk(connection: socket.socket, closed: threading.Event) -> None:
        for piece in pieces:
            connection.sendall(piece)

    return talk


def drips(first: bytes, drop: bytes) -> Talk:
    """Never still for so long that one read takes too long, and never done."""

    def talk(connection: socket.socket, closed: threading.Event) -> None:
        connection.sendall(first)
        while not closed.wait(SHORT / 20):
            connection.sendall(drop)

    return talk


def test_an_answer_has_status_and_body() -> None:
    with server(says(b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a": 1}')) as (url, requests):
        answer = http.get(url + "/x", timeout=LONG, key="k-1")
        assert (answer.ok, answer.status, answer.json(), answer.problem) == (True, 200, {"a": 1}, "")
        assert requests[0].startswith(b"GET /x HTTP/1.1\r\n")
        assert b"Authorization: Bearer k-1\r\n" in requests[0]
        http.post(url, {"q": "ü"}, timeout=LONG)
        assert requests[1].startswith(b"POST / HTTP/1.1\r\n")
        assert json.loads(requests[1].split(b"\r\n\r\n")[1]) == {"q": "ü"}
        assert b"Authorization" not in requests[1]


@pytest.mark.parametrize(("status", "ok"), [(200, True), (204, True), (302, False), (404, False), (503, False)])
def test_only_success_is_ok(status: int, ok: bool) -> None:
    with server(says(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())) as (url, _):
        assert http.get(url, timeout=LONG).ok is ok


def test_a_body_that_is_no_json_is_none() -> None:
    with server(says(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{")) as (url, _):
        assert http.get(url, timeout=LONG).json() is None


def test_nobody_there_is_an_answer_that_says_so() -> None:
    answer = http.get(f"http://127.0.0.1:{free_port()}/", timeout=LONG)
    assert (answer.ok, answer.status) == (False, None)
    assert "refused" in answer.problem


@pytest.mark.parametrize("host", ["a" * 70, "a..b", "no-such-host.invalid"])
def test_a_host_that_is_none_is_an_answer_that_says_so(host: str) -> None:
    assert http.get(f"http://{host}:1/", timeout=LONG).problem


def test_a_server_that_says_nothing_costs_the_limit_and_no_more() -> None:
    def listens(connection: socket.socket, closed: threading.Event) -> None:
        closed.wait()

    with server(listens) as (url, _):
        assert http.get(url, timeout=SHORT) == http.Answer(None, b"", "timed out")


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"", b"x"),
    ],
)
def test_a_server_that_never_ends_costs_the_limit_and_no_more(first: bytes, drop: bytes) -> None:
    with server(drips(first, drop)) as (url, _):
        assert http.get(url, timeout=SHORT) == http.Answer(None, b"", "timed out")


@given(st.binary(max_size=200) | st.builds(lambda *parts: b"".join(parts), st.sampled_from([b"HTTP/1.1 ", b"HTTP/9 ", b"SSH-2.0"]), st.binary(max_size=20), st.just(b"\r\n"), st.binary(max_size=60)))
@settings(max_examples=60)
def test_whatever_comes_back_is_an_answer(reply: bytes) -> None:
    with server(says(reply)) as (url, _):
        answer = http.get(url, timeout=LONG)
        assert answer.status is not None or answer.problem


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"service": SERVICE, "root_id": "abc", "pid": 7, "more": 1}, MediaHealth("abc", 7)),
        ({"service": SERVICE, "root_id": None, "pid": 7}, None),
        ({"service": "another", "root_id": "abc", "pid": 7}, None),
        ({"root_id": "abc", "pid": 7}, None),
        (["abc"], None),
        (None, None),
    ],
)
def test_a_media_server_is_ours_only_when_it_says_so(record: object, expected: MediaHealth | None) -> None:
    body = json.dumps(record).encode()
    with server(says(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)) as (url, _):
        assert health("127.0.0.1", int(url.rsplit(":", 1)[1]), LONG) == expected
