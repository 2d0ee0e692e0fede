"""Start, end, and what is said when it cannot start."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from .conftest import REPOSITORY, SECONDS, MediaServer, parse, running


def start_refused(*arguments: str, module: str = "qwen_fp8_ops.media") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=SECONDS, cwd=REPOSITORY, check=False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_cleanly_with_idle_half_sent_and_stalled_clients(tmp_path: Path, number: signal.Signals) -> None:
    with open(tmp_path / "huge.bin", "wb") as file:
        file.truncate(1 << 30)  # far more than the sockets' buffers hold
    with running(tmp_path) as server:
        clients = [server.connect() for _ in range(20)]
        clients[0].sendall(b"GET /huge.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        assert clients[0].recv(1)  # under way, and no more is read
        clients[1].sendall(b"GET /_health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert clients[1].recv(1)  # idle now
        clients[2].sendall(b"GET /_hea")
        assert server.end(number) == 0
        for client in clients:
            client.close()
    assert server.lines[-1].endswith("media: ended\n")
    assert len(server.lines) == 2, server.lines


def test_an_answer_under_way_is_finished_before_the_end(tmp_path: Path) -> None:
    content = os.urandom(20_000_000)
    (tmp_path / "big.bin").write_bytes(content)
    with running(tmp_path) as server, server.connect() as client:
        client.sendall(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        got = client.recv(1)
        server.process.send_signal(signal.SIGTERM)
        while part := client.recv(1 << 20):
            got += part
        assert server.process.wait(SECONDS) == 0
    assert parse(got).body == content


def test_the_port_can_be_taken_again_at_once(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        assert server.ask("/_health").status == 200
        server.process.kill()
        server.process.wait(SECONDS)
        again = subprocess.Popen(
            [sys.executable, "-m", "qwen_fp8_ops.media", "--root", str(tmp_path), "--port", str(server.port)], stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
        )
        assert again.stderr
        with again, again.stderr:
            assert "serving" in again.stderr.readline()
            again.terminate()
            assert again.wait(SECONDS) == 0


def test_is_one_process(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        server.ask("/")
        assert psutil.Process(server.process.pid).children(recursive=True) == []
        os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait(SECONDS)
        with pytest.raises(ConnectionRefusedError):
            server.connect()


def test_taken_port_is_named_with_its_owner(server: MediaServer) -> None:
    told = start_refused("--root", str(server.root), "--port", str(server.port))
    assert told.returncode == 1
    assert told.stdout == ""
    assert told.stderr.count("\n") == 1
    assert f"Error: Port {server.port} is already in use (pid {server.process.pid}: " in told.stderr


def test_missing_root_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "absent", tmp_path / "file"):
        told = start_refused("--root", str(root), "--port", "0")
        assert told.returncode == 2
        assert told.stderr.count("\n") == 1
        assert f"Error: Media folder not found: {root}" in told.stderr


def test_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    told = start_refused("--root", str(tmp_path), "--host", "192.0.2.1", "--port", "0")
    assert told.returncode == 2
    assert "Error: Cannot listen on 192.0.2.1:0" in told.stderr


@pytest.mark.parametrize("port", ["70000", "-1", "x"])
def test_no_such_port(tmp_path: Path, port: str) -> None:
    told = start_refused("--root", str(tmp_path), f"--port={port}")
    assert told.returncode == 2
    assert "Traceback" not in told.stderr


def test_ipv6(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"six")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with running(tmp_path, "--host", "::1") as server, socket.create_connection(("::1", server.port), timeout=SECONDS) as client:
        client.sendall(b"GET /a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        assert b"[::1]" in server.lines[0].encode()
        assert client.makefile("rb").read().endswith(b"six")


def test_a_file_that_shrinks_is_broken_off_and_not_filled_up(tmp_path: Path) -> None:
    size = 1 << 28
    with open(tmp_path / "shrinks.bin", "wb") as file:
        file.truncate(size)
    with running(tmp_path) as server, server.connect() as client:
        client.sendall(b"GET /shrinks.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        got = len(client.recv(1))
        os.truncate(tmp_path / "shrinks.bin", 1000)
        with contextlib.suppress(ConnectionResetError):
            while part := client.recv(1 << 20):
                got += len(part)
        assert got < size
        assert server.ask("/_health").status == 200


def test_verb_creates_the_root_prints_the_url_and_ends(tmp_path: Path) -> None:
    root = tmp_path / "new folder"
    argv = [sys.executable, "-m", "qwen_fp8_ops", "media", "--root", str(root), "--port", "0"]
    environment = {**os.environ, "QWEN_FP8_HOME": str(tmp_path)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY, env=environment) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        assert root.is_dir()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, told


def test_verb_takes_its_defaults_from_the_settings(tmp_path: Path, server: MediaServer) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "qwen_fp8_ops", "media", "--set", "MEDIA_ROOT=here", "--set", f"MEDIA_PORT={server.port}"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=REPOSITORY,
        env={**os.environ, "QWEN_FP8_HOME": str(tmp_path)},
        check=False,
    )
    assert told.returncode == 1
    assert told.stderr.startswith(f"Error: Port {server.port} is already in use (pid {server.process.pid}")
    assert (tmp_path / "here").is_dir()
