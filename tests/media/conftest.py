"""A real media server on a free port, and a client that sends bytes exactly as written."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SECRET = b"the secret that lies outside"
HIDDEN = b"a hidden file inside"
SECONDS = 20  # longest wait for anything; nothing here takes long


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class MediaServer:
    """A running ``python -m qwen_fp8_ops.media``; ``lines`` is what it has logged."""

    process: subprocess.Popen[str]
    root: Path
    port: int
    lines: list[str] = field(default_factory=list)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)

    def send_raw(self, request: bytes) -> bytes:
        """Everything that comes back until the server closes."""
        with self.connect() as sock:
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

    def ask(self, target: str | bytes, method: str = "GET", **headers: str) -> Reply:
        """One request; header names are written with underscores."""
        raw = target if isinstance(target, bytes) else target.encode()
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        return parse(self.send_raw(method.encode() + b" " + raw + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + lines.encode("latin-1") + b"\r\n"))

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def parse(raw: bytes) -> Reply:
    head, mark, body = raw.partition(b"\r\n\r\n")
    assert mark, f"no answer: {raw!r}"
    first, *lines = head.decode("latin-1").split("\r\n")
    return Reply(int(first.split()[1]), {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}, body)


@contextmanager
def running(root: Path, *more: str, before: str = "") -> Iterator[MediaServer]:
    """``before`` is Python that the server's process runs first."""
    start = ["-c", f"{before}\nimport runpy; runpy.run_module('qwen_fp8_ops.media', run_name='__main__')"] if before else ["-m", "qwen_fp8_ops.media"]
    argv = [sys.executable, *start, "--root", str(root), "--port", "0", *more]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, errors="replace", cwd=REPOSITORY, start_new_session=True)
    assert process.stderr
    try:
        first = process.stderr.readline()
        assert "serving" in first, first + process.stderr.read()
        server = MediaServer(process, root, int(first.rstrip().rsplit(":", 1)[1]), [first])
        collector = threading.Thread(target=lambda: server.lines.extend(process.stderr))  # type: ignore[arg-type]
        collector.start()
        yield server
    finally:
        process.kill()
        process.wait(SECONDS)
        if "collector" in locals():
            collector.join(SECONDS)
        process.stderr.close()


def fill(folder: Path) -> Path:
    """The root that most tests share, with a secret beside it."""
    root = folder / "my \"media\" 'root' ü"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / ".hidden").mkdir()
    (folder / "outside").mkdir()
    (folder / "outside" / "secret.txt").write_bytes(SECRET)
    (folder / "secret.txt").write_bytes(SECRET)
    (folder / "outside" / "passwd").write_bytes(SECRET)
    for path in (".env", ".hidden/inner.txt", "sub/.git"):
        (root / path).write_bytes(HIDDEN)
    (root / "hello.txt").write_bytes(b"hello, world\n")
    (root / "none.bin").write_bytes(b"")
    (root / "small.bin").write_bytes(bytes(range(256)) * 12)
    (root / "large.mp4").write_bytes(os.urandom(3_000_000))
    (root / "sub" / "deep" / "a.json").write_bytes(b"{}")
    for name in ODD_NAMES:
        (root / "sub" / name).write_bytes(name.encode())
    os.symlink("hello.txt", root / "inside-link.txt")
    os.symlink(root / "sub", root / "inside-folder")
    os.symlink("../outside/secret.txt", root / "leak.txt")
    os.symlink(folder / "outside", root / "leak")
    os.symlink("/", root / "sub" / "slash")
    os.symlink(".env", root / "env-link.txt")
    os.symlink("loop", root / "loop")
    os.symlink("leak", root / "leak2")
    os.mkfifo(root / "pipe.mp4")
    return root


ODD_NAMES = [
    "a b.txt",
    "it's.txt",
    'say "hi".txt',
    "<b>&amp;.txt",
    "100%.txt",
    "%2e%2e.txt",
    "a%20b.txt",
    "naïve 文字.png",
    "a:b.txt",
    "#1?.txt",
    "new\nline.txt",
    "+plus;.txt",
]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MediaServer]:
    with running(fill(tmp_path_factory.mktemp("media"))) as started:
        yield started
        assert started.process.poll() is None, "the server died under a test"
