"""Ports of this host."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from qwen_fp8_ops.outside import net
from qwen_fp8_ops.outside.process import command_line
from tests.ports import free_port

LISTENER = """
import socket, sys
held = []
for host in sys.argv[2:]:
    server = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((host, int(sys.argv[1])))
    server.listen(1)
    held.append(server)
print("up", flush=True)
sys.stdin.read()
"""


@contextmanager
def connection_from(port: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection whose client has ``port`` as its own: the client's end, and the server's."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.bind(("127.0.0.1", port))
        client.connect(server.getsockname())
        served, _ = server.accept()
        with served:
            yield client, served


@contextmanager
def listener(port: int, *hosts: str) -> Iterator[int]:
    """Another process that listens there; its pid."""
    running = subprocess.Popen([sys.executable, "-c", LISTENER, str(port), *hosts], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert running.stdout
    assert running.stdout.readline() == "up\n"
    try:
        yield running.pid
    finally:
        running.communicate()


def as_nobody(expression: str) -> str:
    """The value of an expression over ``net``, as a user without rights sees it."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    program = (
        "import os\nfrom qwen_fp8_ops.outside import net\n"
        "net.port_owner('127.0.0.1', 0)\n"  # loads what that user may not read
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"try: print({expression})\nexcept OSError as error: print(repr(error))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_free_port_has_no_owner() -> None:
    assert net.port_owner("127.0.0.1", free_port()) is None


@pytest.mark.parametrize(
    ("taken", "wanted"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("::1", "::1"), ("127.0.0.1", "localhost")]
)
def test_a_taken_port_names_pid_and_command(taken: str, wanted: str) -> None:
    port = free_port()
    with listener(port, taken) as pid:
        owner = net.port_owner(wanted, port)
        assert owner
        assert (owner.port, owner.pid) == (port, pid)
        assert str(owner).startswith(f"pid {pid}: {sys.executable} -c")
        assert len(str(owner)) < 140
    assert net.port_owner(wanted, port) is None


def test_of_two_listeners_the_one_on_our_address_is_named() -> None:
    port = free_port()
    with listener(port, "127.0.0.2") as one, listener(port, "127.0.0.1") as two:
        found = [net.port_owner(host, port) for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3")]
        assert [owner.pid if owner else None for owner in found] == [two, one, None]
        either = net.port_owner("0.0.0.0", port)
        assert either
        assert either.pid in (one, two)


def test_a_connection_that_lingers_does_not_hold_the_port() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as server:
        client = socket.create_connection(("127.0.0.1", port))
        served, _ = server.accept()
        served.close()  # the side that closes first keeps TIME_WAIT
        assert client.recv(1) == b""
        client.close()
    assert net.can_bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "a" * 64, "a..b", "x" * 300])
def test_what_is_no_address_of_this_host_is_an_os_error(host: str) -> None:
    with pytest.raises(OSError, match=r"."):
        net.can_bind(host, free_port())


def test_a_connection_that_has_the_port_as_its_own_is_not_taken_for_a_listener() -> None:
    port = free_port()
    with connection_from(port) as (client, served):
        owner = net.port_owner("127.0.0.1", port)
        assert owner
        assert owner.pid == os.getpid()
        assert str(owner) == f"a connection has it as its own port, pid {os.getpid()}: {command_line(os.getpid())[:120]}"
        client.close()
        served.close()
        assert str(net.port_owner("127.0.0.1", port)) == "a closing connection, most often gone within a minute"
        assert net.port_owner("127.0.0.2", port) is None


def test_a_listener_comes_before_the_connections_that_it_accepted() -> None:
    port = free_port()
    with listener(port, "127.0.0.1") as pid, socket.create_connection(("127.0.0.1", port)):
        for host in ("127.0.0.1", "0.0.0.0"):
            owner = net.port_owner(host, port)
            assert owner
            assert (owner.pid, owner.status) == (pid, "LISTEN")


def test_a_port_that_is_held_without_listening() -> None:
    port = free_port()
    with socket.socket() as held:
        held.bind(("127.0.0.1", port))
        assert str(net.port_owner("127.0.0.1", port)) == "a program that holds it without listening"
    assert net.port_owner("127.0.0.1", port) is None


def test_a_process_of_another_user_has_no_name() -> None:
    port, outgoing = free_port(), free_port()
    with listener(port, "127.0.0.1"), connection_from(outgoing):
        assert as_nobody(f"net.port_owner('127.0.0.1', {port})") == "a process of another user, or one that is just ending"
        words = "a connection has it as its own port, a process of another user, or one that is just ending"
        assert as_nobody(f"net.port_owner('127.0.0.1', {outgoing})") == words


def test_a_port_only_for_root_is_not_said_to_be_taken() -> None:
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
        if int(file.read()) < 1024:
            pytest.skip("here everybody may have any port")
    assert as_nobody("net.port_owner('127.0.0.1', 1023)") == "PermissionError(13, 'Permission denied')"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert net.is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "node07", "127.0.0.1.example.org", "127.example.org", "localhost.example.org", "", "1270.0.0.1"])
def test_everything_else_may_be_reached_from_outside(host: str) -> None:
    assert not net.is_loopback(host)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:1/x"),
        ("0.0.0.0", "http://127.0.0.1:1/x"),
        ("::", "http://[::1]:1/x"),
        ("::1", "http://[::1]:1/x"),
        ("node07", "http://node07:1/x"),
    ],
)
def test_urls_that_a_client_on_this_machine_can_use(host: str, expected: str) -> None:
    assert net.url(host, 1, "/x") == expected
