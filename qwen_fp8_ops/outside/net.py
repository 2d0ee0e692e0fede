"""This host's ports: is one free, and whose is it. Its addresses and names."""

from __future__ import annotations

import errno
import ipaddress
import socket
from dataclasses import dataclass
from typing import Any

import psutil

from qwen_fp8_ops.outside import process

CLOSING = {psutil.CONN_FIN_WAIT1, psutil.CONN_FIN_WAIT2, psutil.CONN_CLOSING, psutil.CONN_LAST_ACK, psutil.CONN_TIME_WAIT}
"""What a connection is in after its process closed it: the kernel's own, for 60 s if the other side is well."""
EVERY_ADDRESS = ("0.0.0.0", "::")


@dataclass(frozen=True)
class PortOwner:
    """What keeps a port taken: a listener, or a connection that has it as its own port.

    ``pid`` is None when no process can be named: it is another user's, it is just ending, or the kernel alone closes the
    connection. ``status`` is psutil's, empty when nothing of that port is to be seen: a socket that is bound and no more.
    """

    port: int
    pid: int | None
    command: str
    status: str = psutil.CONN_LISTEN

    def __str__(self) -> str:
        process_named = f"pid {self.pid}: {self.command[:120]}" if self.pid else "a process of another user, or one that is just ending"
        if self.status == psutil.CONN_LISTEN:
            return process_named
        if not self.status:
            return "a program that holds it without listening"
        if self.status in CLOSING and not self.pid:
            return "a closing connection, most often gone within a minute"
        return f"a connection has it as its own port, {process_named}"


def port_owner(host: str, port: int) -> PortOwner | None:
    """What keeps us from binding ``host:port``; None when the port is free.

    Raises:
        OSError: as ``can_bind``.
    """
    if can_bind(host, port):
        return None
    ours = _address(host, port)[-1][0]
    found = [connection for connection in psutil.net_connections(kind="tcp") if connection.laddr and connection.laddr.port == port]
    if not found:
        return None if can_bind(host, port) else PortOwner(port, None, "", "")  # in the first case it was given back meanwhile

    def rank(connection: Any) -> tuple[bool, bool, bool]:
        """Several may use one port, each on an address of its own: what is on ours is in the way, and a listener more than what it accepted."""
        here = ours in EVERY_ADDRESS or connection.laddr.ip in (ours, *EVERY_ADDRESS)
        return not here, connection.status != psutil.CONN_LISTEN, connection.pid is None

    first = min(found, key=rank)
    return PortOwner(port, first.pid, process.command_line(first.pid) if first.pid else "", first.status)


def can_bind(host: str, port: int) -> bool:
    """Could a server listen there now? Connections of an earlier server that linger in TIME_WAIT do not count.

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


def own_addresses() -> frozenset[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Every address of this host's interfaces."""
    found = (
        entry.address.partition("%")[0] for entries in psutil.net_if_addrs().values() for entry in entries if entry.family in (socket.AF_INET, socket.AF_INET6)
    )
    return frozenset(map(ipaddress.ip_address, found))


def names_of(host: str) -> tuple[str, ...]:
    """The names by which clients ask for a server that listens on ``host``; a server on every address has all of this host's."""
    names = [reachable_host(host).lower()]
    if is_loopback(names[0]):
        names += ["localhost", "127.0.0.1"]
    if host in EVERY_ADDRESS:
        names += [socket.gethostname().lower(), *sorted(map(str, own_addresses()))]
    return tuple(dict.fromkeys(names))


def reachable_host(host: str) -> str:
    """What a client on this machine connects to when a server listens on ``host``."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def url(host: str, port: int, path: str = "") -> str:
    name = reachable_host(host)
    return f"http://[{name}]:{port}{path}" if ":" in name else f"http://{name}:{port}{path}"
