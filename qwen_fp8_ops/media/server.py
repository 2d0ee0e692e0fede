"""Listens, takes clients in, gives up those that stall, and ends on SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from qwen_fp8_ops.errors import ConfigError, OpsError
from qwen_fp8_ops.media.answer import Site
from qwen_fp8_ops.media.connection import NOT_NOW, Connection
from qwen_fp8_ops.media.message import Request
from qwen_fp8_ops.outside import clock, net

SWEEP_SECONDS = 1.0
GOODBYE_SECONDS = 1.0  # for answers under way when the server ends
BACKLOG = 1024
MOST_CLIENTS = 4096
SPARE_DESCRIPTORS = 64
REST_SECONDS = 0.5  # without new clients, after the machine had no descriptor or memory for one


def serve(root: Path, host: str, port: int, *, on_ready: Callable[[str], None] | None = None, access_log: bool = False) -> None:
    """Serve the folder until SIGTERM or SIGINT. Call it in the main thread.

    Args:
        port: 0 takes any free one; the line in the log and ``on_ready`` (called with the URL) name it.

    Raises:
        ConfigError: the root is no folder, or the host is no address of this machine.
        OpsError: the port is taken.
    """
    if not root.is_dir():
        raise ConfigError(f"Media folder not found: {root}", code="no-media-root", fix=f"mkdir -p '{root}'   (or set MEDIA_ROOT)")
    listener = _listen(host, port)
    site = Site.of(root)

    def ready() -> None:
        url = net.url(host, listener.getsockname()[1])
        log(f"serving {site.jail.root} at {url}")
        if on_ready:
            on_ready(url)

    with listener:
        asyncio.run(MediaServer(site, access_log=access_log).run(listener, ready))
    log("ended")


def log(message: str) -> None:
    """One line. A full disk or a reader that went away must not stop the serving."""
    with contextlib.suppress(OSError):
        print(f"{clock.now()} media: {message}", file=sys.stderr, flush=True)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            owner = net.port_owner(host, port) or "by a program that has just ended"
            raise OpsError(f"Port {port} is already in use ({owner})", code="port-in-use", fix="Stop that program, or set MEDIA_PORT.") from error
        raise ConfigError(f"Cannot listen on {host}:{port}: {error.strerror}", code="cannot-listen", fix="Check MEDIA_HOST and MEDIA_PORT.") from error


class MediaServer:
    """The ``Host`` of all connections."""

    def __init__(self, site: Site, *, access_log: bool = False) -> None:
        self.site = site
        self.stopping = False
        self._access_log = access_log
        self._connections: set[Connection] = set()
        self._most_clients = _most_clients()

    async def run(self, listener: socket.socket, ready: Callable[[], None]) -> None:
        self.loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, stop.set)
        listener.setblocking(False)
        self._accept_from(listener)
        ready()
        while not stop.is_set():
            self._give_up_stalled()
            await _wait(stop, SWEEP_SECONDS)
        self.loop.remove_reader(listener.fileno())
        listener.close()
        await self._say_goodbye()

    def _accept_from(self, listener: socket.socket) -> None:
        if listener.fileno() != -1:
            self.loop.add_reader(listener.fileno(), self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, address = listener.accept()
        except (*NOT_NOW, ConnectionAbortedError):
            return
        except OSError as error:
            self.complain(f"no new clients for a moment: {error.strerror}")
            self.loop.remove_reader(listener.fileno())
            self.loop.call_later(REST_SECONDS, self._accept_from, listener)
            return
        if len(self._connections) >= self._most_clients:
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections.add(Connection(self, sock, str(address[0])))

    def _give_up_stalled(self) -> None:
        now = self.loop.time()
        for connection in [each for each in self._connections if each.deadline < now]:
            connection.close()

    async def _say_goodbye(self) -> None:
        """Idle clients are closed now, answers under way get a moment."""
        self.stopping = True
        end = self.loop.time() + GOODBYE_SECONDS
        while self._connections:
            late = self.loop.time() > end
            for connection in [each for each in self._connections if late or not each.is_busy]:
                connection.close()
            await asyncio.sleep(0.01)

    def forget(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def complain(self, message: str) -> None:
        log(message)

    def note(self, peer: str, request: Request, status: int) -> None:
        if self._access_log:
            log(f"{peer} {status} {request.method} {request.target[:1000].decode('latin-1')}")


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


def _most_clients() -> int:
    """Each client may hold two descriptors, its socket and a file; ask the system for as many as it grants."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST_CLIENTS + SPARE_DESCRIPTORS
    soft = wanted if most == resource.RLIM_INFINITY else min(most, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))
    return max(1, (soft - SPARE_DESCRIPTORS) // 2)
