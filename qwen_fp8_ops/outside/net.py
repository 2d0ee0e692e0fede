"""Ports of this host: is one free, and whose is it."""

from __future__ import annotations

import errno
import ipaddress
import socket
from dataclasses import dataclass

import psutil

from qwen_fp8_ops.outside import process


@dataclass(frozen=True)
class PortOwner:
    """Who listens; ``pid`` is None when another user's process does and we may not see whose."""

    port: int
    pid: int | None
    command: str

    def __str__(self) -> str:
        return f"pid {self.pid}: {self.command[:120]}" if self.pid else "a process of another user"


def port_owner(host: str, port: int) -> PortOwner | None:
    """The listener that keeps us from binding ``host:port``; None when the port is free.

    Raises:
        OSError: as ``can_bind``.
    """
    if can_bind(host, port):
        return None
    pids: dict[str, int] = {}
    for connection in psutil.net_connections(kind="tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port and connection.pid:
            pids[connection.laddr.ip] = connection.pid
    if not pids:
        return PortOwner(port, None, "")
    # Several may listen on one port, each on an address of its own: the one on ours is in the way.
    pid = pids.get(_address(host, port)[-1][0]) or next(iter(pids.values()))
    return PortOwner(port, pid, process.command_line(pid))


def can_bind(host: str, port: int) -> bool:
    """Could a server listen there now? Connections that linger in TIME_WAIT do not count.

    Raises:
        OSError: the address is not one of this host's, or the port is one that only root may have.
    """
    family, kind, protocol, _, address = _address(host, port)
    with socket.socket(family, kind, protocol) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(address)
            trial.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def _address(host: str, port: int) -> tuple[int, int, int, str, tuple[str, int]]:
    try:
        family, kind, protocol, name, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except UnicodeError as error:  # a name that no name server could be asked for
        raise OSError(errno.EINVAL, f"{host!r} is no host name") from error
    return family, kind, protocol, name, (str(address[0]), int(address[1]))


def is_loopback(host: str) -> bool:
    """Only this machine can reach it; a name that merely begins with 127 may lead anywhere."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reachable_host(host: str) -> str:
    """What a client on this machine connects to when a server listens on ``host``."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def url(host: str, port: int, path: str = "") -> str:
    name = reachable_host(host)
    return f"http://[{name}]:{port}{path}" if ":" in name else f"http://{name}:{port}{path}"
