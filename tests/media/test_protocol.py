"""Methods, bodies and what is not HTTP."""

from __future__ import annotations

import json
import os
import signal
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from qwen_fp8_ops.outside.media_health import PICTURE_PATH, health, root_id

from .conftest import parse, read_all, running

if TYPE_CHECKING:
    from .conftest import MediaServer


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "MKCOL", "COPY", "BREW"])
def test_other_methods(server: MediaServer, method: str) -> None:
    reply = server.ask("/hello.txt", method)
    assert (reply.status, reply.body) == (405, b"405 Method Not Allowed\n")
    assert reply.headers["allow"] == "GET, HEAD"


def test_writes_change_nothing(server: MediaServer) -> None:
    before = sorted(path.name for path in server.root.iterdir())
    for method in ("PUT", "POST", "DELETE"):
        raw = server.send_raw(f"{method} /new.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc".encode())
        assert parse(raw).status == 405
    assert sorted(path.name for path in server.root.iterdir()) == before


def test_a_small_body_keeps_the_connection(server: MediaServer) -> None:
    with server.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /hello.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        raw = read_all(sock)
    assert raw.count(b"HTTP/1.1 405") == 1
    assert raw.endswith(b"hello, world\n")


@pytest.mark.parametrize(
    "head", [b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000, b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + b"a" * 200_000, b"GET /" + b"a" * 200_000]
)
def test_too_large_a_request_is_refused_and_the_client_can_read_it(server: MediaServer, head: bytes) -> None:
    with server.connect() as sock:
        sock.sendall(head)
        raw = read_all(sock)
    assert parse(raw).status == 413
    assert b"Connection: close" in raw


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=200))
def test_garbage_never_breaks_the_server(server: MediaServer, data: bytes) -> None:
    raw = server.send_raw(data + b"\r\n\r\n")
    assert not raw or parse(raw).status in (200, 400, 404, 405)


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01\x00\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
def test_other_protocols_are_refused(server: MediaServer, data: bytes) -> None:
    assert parse(server.send_raw(data)).status in (400, 405)


def test_an_offered_upgrade_is_answered_as_http_1_1(server: MediaServer) -> None:
    raw = server.send_raw(b"GET /hello.txt HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n")
    assert parse(raw).body == b"hello, world\n"


def test_health_names_service_root_and_process(server: MediaServer) -> None:
    told = server.ask("/_health")
    assert told.status == 200
    assert json.loads(told.body) == {"service": "qwen-fp8-media", "root_id": root_id(server.root), "pid": server.process.pid}
    seen = health("127.0.0.1", server.port, 20)
    assert seen is not None
    assert (seen.root_id, seen.pid) == (root_id(server.root), server.process.pid)


def test_the_probe_picture_is_one_and_is_given_out_only_while_the_folder_can_be_read(server: MediaServer) -> None:
    told = server.ask(PICTURE_PATH)
    assert (told.status, told.headers["content-type"]) == (200, "image/png")
    with Image.open(BytesIO(told.body)) as picture:
        picture.load()
        assert picture.size == (32, 32)
    away = server.root.with_name("away")
    server.root.rename(away)
    try:
        assert server.ask(PICTURE_PATH).status == 503
        assert server.ask("/_health").status == 200
    finally:
        away.rename(server.root)
    assert server.ask(PICTURE_PATH).status == 200


def test_root_id_is_the_same_for_every_path_to_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.symlink("a", tmp_path / "b")
    assert root_id(tmp_path / "a") == root_id(tmp_path / "b") != root_id(tmp_path)


def test_health_is_none_for_strangers(server: MediaServer, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with server.connect() as sock:
        unused = sock.getsockname()[1]
    assert health("127.0.0.1", unused, 5) is None


def test_access_log_is_off_unless_asked(server: MediaServer, tmp_path: Path) -> None:
    server.ask("/hello.txt")
    assert not [line for line in server.lines if "hello" in line]
    (tmp_path / "a.txt").touch()
    with running(tmp_path, "--access-log") as logging:
        logging.ask("/a.txt?x=1")
        logging.ask("/%0aforged")
        assert logging.end(signal.SIGTERM) == 0
    assert len(logging.lines) == 4
    assert logging.lines[1].endswith("media: 127.0.0.1 200 GET /a.txt?x=1\n")
