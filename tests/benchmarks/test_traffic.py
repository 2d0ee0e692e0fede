"""One request of a client against servers that do what dying ones do."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable

import pytest

from benchmarks.under_load.traffic import Kind, exchange
from benchmarks.under_load.verdict import Reply
from tests.ports import free_port

WHOLE = b"HTTP/1.1 200 OK\r\nX-Request-Id: me\r\nContent-Length: 2\r\n\r\nhi"
HALF = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"


def speak(text: bytes) -> Callable[[socket.socket], None]:
    return lambda client: client.sendall(text)


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize(
    ("act", "reply"),
    [
        (speak(WHOLE), Reply(200, b"hi", "me")),
        (speak(HALF), Reply(200, problem="broken")),
        (speak(b""), Reply(problem="broken")),
        (reset, Reply(problem="broken")),
    ],
)
def test_what_a_client_sees(act: Callable[[socket.socket], None], reply: Reply) -> None:
    def serve() -> None:
        client, _ = listener.accept()
        with client:
            client.recv(65_536)
            act(client)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve)
        server.start()
        assert exchange(f"http://127.0.0.1:{listener.getsockname()[1]}/x", b"{}", "me", 60) == reply
        server.join()


def test_nobody_listens() -> None:
    assert exchange(f"http://127.0.0.1:{free_port()}/x", b"{}", "me", 60) == Reply(problem="unreached")


def test_silence_ends_with_the_client_s_patience() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert exchange(f"http://127.0.0.1:{listener.getsockname()[1]}/x", None, "me", 0.2) == Reply(problem="timed out")


def test_no_two_bodies_are_the_same_and_all_are_as_long() -> None:
    bodies = {Kind("text").body("m", number, streamed=False) for number in range(1, 1001)}
    assert len(bodies) == 1000 and len({len(body) for body in bodies}) == 1
