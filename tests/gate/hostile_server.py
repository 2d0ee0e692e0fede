"""A host that clients name in media URLs: it answers well, badly, or for ever, as its path says."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Self

BLOCK = b"x" * 65_536


@dataclass
class HostileServer:
    """``seen`` are the heads of the requests; ``connections`` counts also those that asked nothing."""

    address: str = "127.0.0.2"
    body: bytes = b"a picture"
    seen: list[bytes] = field(default_factory=list)
    connections: int = 0
    sent_bytes: int = 0
    failures_left: int = 0

    def __enter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        host = self

        class Server(socketserver.ThreadingTCPServer):
            address_family = family
            daemon_threads = True
            allow_reuse_address = True

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                host.connections += 1
                try:
                    host.answer(self.request)
                except OSError:
                    pass  # the client had enough

        self.server = Server((self.address, 0), Handler)
        self.port: int = self.server.server_address[1]
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.server.shutdown()
        self.thread.join(30)
        self.server.server_close()

    def url(self, path: str = "/ok") -> str:
        return f"http://{f'[{self.address}]' if ':' in self.address else self.address}:{self.port}{path}"

    def answer(self, connection: Any) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(65_536)
            if not piece:
                return
            head += piece
        self.seen.append(head)
        name, _, query = head.split(b" ")[1].decode().partition("?")
        getattr(self, name.strip("/").replace("-", "_"), self.missing)(connection, query)

    def send(self, connection: Any, data: bytes) -> None:
        connection.sendall(data)
        self.sent_bytes += len(data)

    def head(self, connection: Any, *lines: str, status: str = "200 OK") -> None:
        self.send(connection, "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode())

    # By path

    def ok(self, connection: Any, query: str) -> None:
        self.head(connection, f"Content-Length: {len(self.body)}", *([f"Content-Type: {query}"] if query else []))
        self.send(connection, self.body)

    def until_closed(self, connection: Any, query: str) -> None:
        self.head(connection, "Content-Type: image/png")
        self.send(connection, self.body)

    def missing(self, connection: Any, query: str) -> None:
        self.head(connection, "Content-Length: 0", status="404 Not Found")

    def broken(self, connection: Any, query: str) -> None:
        self.head(connection, "Content-Length: 0", status="500 Internal Server Error")

    def flaky(self, connection: Any, query: str) -> None:
        self.failures_left -= 1
        (self.ok if self.failures_left < 0 else self.broken)(connection, "")

    def flaky_connection(self, connection: Any, query: str) -> None:
        self.failures_left -= 1
        if self.failures_left < 0:
            self.ok(connection, "")

    def empty_answer(self, connection: Any, query: str) -> None:
        pass

    def not_http(self, connection: Any, query: str) -> None:
        self.send(connection, b"SSH-2.0-OpenSSH_9.6\r\n\r\n")

    def redirect(self, connection: Any, query: str) -> None:
        self.head(connection, f"Location: {query}", "Content-Length: 0", status="302 Found")

    def compressed(self, connection: Any, query: str) -> None:
        self.head(connection, "Content-Encoding: gzip", f"Content-Length: {len(self.body)}")
        self.send(connection, self.body)

    def endless(self, connection: Any, query: str) -> None:
        self.head(connection, "Content-Type: image/png")
        self.for_ever(connection, BLOCK)

    def endless_chunks(self, connection: Any, query: str) -> None:
        self.head(connection, "Transfer-Encoding: chunked")
        self.for_ever(connection, b"10000\r\n" + BLOCK + b"\r\n")

    def endless_head(self, connection: Any, query: str) -> None:
        self.send(connection, b"HTTP/1.1 200 OK\r\n")
        self.for_ever(connection, b"X-More: " + BLOCK + b"\r\n")

    def ten_gigabytes(self, connection: Any, query: str) -> None:
        self.head(connection, "Content-Length: 10000000000")
        self.for_ever(connection, BLOCK)

    def says_more(self, connection: Any, query: str) -> None:
        self.head(connection, "Content-Length: 5000")
        self.send(connection, self.body)

    def says_less(self, connection: Any, query: str) -> None:
        self.head(connection, "Content-Length: 4")
        self.send(connection, self.body * 1000)

    def hang(self, connection: Any, query: str) -> None:
        self.done.wait()

    def hang_after_head(self, connection: Any, query: str) -> None:
        self.head(connection, "Content-Length: 100")
        self.done.wait()

    def drip(self, connection: Any, query: str) -> None:
        self.head(connection, "Content-Length: 100000")
        while not self.done.is_set():
            self.send(connection, b"x")
            time.sleep(0.02)

    def for_ever(self, connection: Any, piece: bytes) -> None:
        while not self.done.is_set():
            self.send(connection, piece)
