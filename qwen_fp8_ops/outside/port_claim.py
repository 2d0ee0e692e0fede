"""Ports that this process has taken for itself before anybody listens on them.

Asking whether a port is free reserves nothing: of two services that start on one node at the same time both would find the same
one. A name in the kernel's abstract socket space can be bound once on a host (one network namespace), by whatever user, and is
given back when its process ends, however it ends.
"""

from __future__ import annotations

import socket
from pathlib import Path

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
ENOUGH = 1000
_held: dict[int, socket.socket] = {}


def claim(port: int) -> bool:
    """Take the port among programs that ask here; True when it is ours, also if it was before. Held until this process ends."""
    if port in _held:
        return True
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"\0qwen-fp8-port-{port}")
    except OSError:
        name.close()
        return False
    _held[port] = name
    return True


def give_back(port: int) -> None:
    if port in _held:
        _held.pop(port).close()


def outside_ephemeral() -> range:
    """Ports that the kernel hands to no outgoing connection, and that need no root: the larger side of the ephemeral range."""
    try:
        low, high = map(int, EPHEMERAL.read_text().split())
    except (OSError, ValueError):
        low, high = 32768, 60999  # the kernel's own default
    below, above = range(min(10_000, low), low), range(high + 1, 65_536)
    found = max(below, above, key=len)
    return found if len(found) >= ENOUGH else range(1024, 65_536)
