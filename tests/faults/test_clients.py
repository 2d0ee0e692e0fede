"""Clients that are many, slow, or send too much."""

from __future__ import annotations

import contextlib
import http.client
import resource
import socket
import threading
from collections.abc import Iterator

import pytest

from qwen_fp8_ops.outside import process
from tests.faults.load import Load
from tests.faults.service import FaultyService
from tests.faults.table import Row
from tests.waiting import wait_for

pytestmark = pytest.mark.faults

MANY = 2000
SLOW = 200
MIB = 1 << 20
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
BLOCK = bytes(MIB)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """For this process: it is the clients."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MANY + 500
    if before[1] != resource.RLIM_INFINITY and before[1] < wanted:
        pytest.skip(f"needs {wanted} descriptors, and `ulimit -Hn` allows {before[1]}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], wanted), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def connections(port: int, count: int, first_bytes: bytes = b"") -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            made.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60)))
            made[-1].sendall(first_bytes)
        yield made


def resident_mib(service: FaultyService, victim: str) -> float:
    found = process.resident_bytes(service.victim(victim))
    assert found
    return found / MIB


def media_answers(service: FaultyService) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", service.settings["MEDIA_PORT"], timeout=30)
    try:
        connection.request("GET", "/_health")
        return connection.getresponse().status == 200
    finally:
        connection.close()


@pytest.mark.parametrize("server", ["gate", "media server"])
def test_idle_connections(service: FaultyService, many_descriptors: None, server: str, row: Row) -> None:
    row.fault, row.ended = f"{MANY:,} idle connections to the {server}, under load", "ready all the time, nothing lost"
    service.started()
    port = service.port if server == "gate" else service.settings["MEDIA_PORT"]
    victim = "API server" if server == "gate" else "media server"
    before = resident_mib(service, victim)
    with connections(port, MANY), Load(service.port) as load:
        assert media_answers(service)
        wait_for(lambda: load.whole > 20, "the load flows")
        grown = resident_mib(service, victim) - before
    unharmed(service, row, load)
    assert grown < 200, f"{grown:.0f} MiB for {MANY} connections that say nothing"


SLOW_STARTS = {
    "half a head": HEAD,
    "half a body": HEAD + b'Content-Length: 1000\r\n\r\n{"messages": [',
    "a chunk without an end": HEAD + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"mes',
}


@pytest.mark.parametrize("sent", SLOW_STARTS, ids=lambda sent: sent.replace(" ", "_"))
def test_slow_clients_of_the_gate(service: FaultyService, sent: str, row: Row) -> None:
    row.fault, row.ended = f"{SLOW} clients of the gate that stop after {sent}, under load", "ready all the time, nothing lost; a stop does not wait for them"
    service.started()
    with connections(service.port, SLOW, SLOW_STARTS[sent]), Load(service.port) as load:
        wait_for(lambda: load.whole > 20, "the load flows")
        load.end()
        unharmed(service, row, load)


def test_slow_clients_of_the_media_server(service: FaultyService, row: Row) -> None:
    row.fault, row.ended = f"{SLOW} clients of the media server that stop after half a head, or do not read", "ready all the time"
    (service.paths.home / "media").mkdir(exist_ok=True)
    with (service.paths.home / "media" / "large.mp4").open("wb") as file:
        file.truncate(64 * MIB)
    service.started()
    port = service.settings["MEDIA_PORT"]
    before = resident_mib(service, "media server")
    asked = b"GET /large.mp4 HTTP/1.1\r\nHost: a\r\n\r\n"
    with connections(port, SLOW // 2, b"GET /large.mp4 HT"), connections(port, SLOW // 2, asked), Load(service.port) as load:
        assert media_answers(service)
        wait_for(lambda: load.whole > 20, "the load flows")
        load.end()
        assert resident_mib(service, "media server") - before < 100
        unharmed(service, row, load)


@pytest.mark.parametrize("how", [pytest.param("announced", marks=pytest.mark.sample), "in chunks"])
def test_two_gigabytes(service: FaultyService, how: str, row: Row) -> None:
    """The gate says no by MAX_BODY_MB: at once when the length is told, else when so much has come; and it keeps none of it."""
    limit_mb = 8
    row.fault, row.ended = f"a body of 2 GB, {how}, under load", "413; nothing lost, no memory taken"
    service.started(MAX_BODY_MB=limit_mb)
    before = resident_mib(service, "API server")
    with Load(service.port) as load:
        wait_for(lambda: load.whole > 4, "the load flows")
        status, sent = send_two_gigabytes(service.port, chunked=how == "in chunks")
        grown = resident_mib(service, "API server") - before
        wait_for(lambda: load.whole > 8, "the load flows on")
    assert status == 413
    assert sent < 200 * MIB, f"{sent // MIB} MiB went out before it was over"
    assert grown < 100, f"it took {grown:.0f} MiB"
    unharmed(service, row, load)


def send_two_gigabytes(port: int, *, chunked: bool) -> tuple[int, int]:
    """The status, read while sending; how many bytes could be sent until the server hung up."""
    total = 2000 * MIB
    framing = b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"Content-Length: %d\r\n\r\n" % total
    sent, answer = 0, b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(HEAD + framing)
        reader = threading.Thread(target=lambda: answers.append(client.makefile("rb").readline()))
        answers: list[bytes] = []
        reader.start()
        try:
            while sent < total and not answers:
                client.sendall(b"%x\r\n%s\r\n" % (MIB, BLOCK) if chunked else BLOCK)
                sent += MIB
        except OSError:
            pass  # it hung up, having said why
        reader.join(60)
        answer = answers[0] if answers else b""
    return int(answer.split()[1]) if answer else 0, sent


def unharmed(service: FaultyService, row: Row, load: Load) -> None:
    row.count(load)
    assert (load.told, load.silent) == (0, 0), load.garbled
    assert service.status()["state"] == "ready"
    assert not service.events("program-died") and not service.events("program-hangs")
    service.stop()
    assert service.left() == []
