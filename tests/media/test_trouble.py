"""Clients that stall, too many of them, and a machine in trouble."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from .conftest import parse, read_all, running

IMPATIENT = "from qwen_fp8_ops.media import connection as c, server as s; c.{} = 0.2; s.SWEEP_SECONDS = 0.05"


@pytest.mark.parametrize(
    ("limit", "sent"),
    [
        ("HEAD_SECONDS", b""),
        ("HEAD_SECONDS", b"GET /_health HTTP/1.1\r\nX: "),
        ("HEAD_SECONDS", b"GET /_health HTTP/1.1\r\n\r\nGET /"),
        ("IDLE_SECONDS", b"GET /_health HTTP/1.1\r\n\r\n"),
    ],
)
def test_silent_clients_are_given_up(tmp_path: Path, limit: str, sent: bytes) -> None:
    with running(tmp_path, before=IMPATIENT.format(limit)) as server, server.connect() as client:
        client.sendall(sent)
        assert read_all(client).count(b"200 OK") == sent.count(b"\r\n\r\n")


def test_a_client_that_stops_reading_is_given_up(tmp_path: Path) -> None:
    with open(tmp_path / "huge.bin", "wb") as file:
        file.truncate(1 << 30)
    with running(tmp_path, before=IMPATIENT.format("STALL_SECONDS")) as server, server.connect() as client:
        client.sendall(b"GET /huge.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1)
        assert waits_for_reset(client)
        assert server.ask("/_health").status == 200


def waits_for_reset(client: socket.socket) -> bool:
    """True once the other side has closed: sending then fails, long before the socket's own time limit."""
    try:
        while True:
            client.sendall(b"\r\n")
    except (ConnectionResetError, BrokenPipeError):
        return True


def test_too_many_clients(tmp_path: Path) -> None:
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (70, 72))"  # room for four
    with running(tmp_path, before=few) as server:
        clients = [server.connect() for _ in range(4)]
        for client in clients:
            client.sendall(b"GET /_health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(1)
        with server.connect() as fifth:
            assert fifth.recv(1) == b""
        for client in clients:
            client.close()
        while True:  # until the server has seen them go
            with server.connect() as again:
                again.sendall(b"GET /_health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                try:
                    raw = read_all(again)
                except ConnectionResetError:
                    continue
                if raw:
                    break
        assert parse(raw).status == 200


@pytest.mark.parametrize("target", ["/a.txt", "/"])
def test_a_failing_disk_is_503_and_one_line_in_the_log(tmp_path: Path, target: str) -> None:
    (tmp_path / "a.txt").touch()
    broken = "import errno\nfrom qwen_fp8_ops.outside.jail import Found\ndef fail(self): raise OSError(errno.EIO, 'Input/output error')\nFound.open = fail"
    with running(tmp_path, before=broken) as server:
        reply = server.ask(target)
        assert (reply.status, reply.headers["retry-after"], reply.body) == (503, "1", b"503 Service Unavailable\n")
        server.end()
    assert server.lines[1:-1] == [line for line in server.lines if f"GET {target}: Input/output error" in line]
    assert len(server.lines) == 3
