"""Free ports for tests."""

from __future__ import annotations

import random
import socket
from pathlib import Path

EPHEMERAL = [int(word) for word in Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()]
"""The kernel gives these to connections that ask for none, so any of them may be taken at any moment; also for a minute after its use."""
CANDIDATES = range(10_000, EPHEMERAL[0]) or range(10_000, 65_536)
DICE = random.SystemRandom()  # hypothesis seeds the common one, the same in every process


def free_port() -> int:
    """A port that nobody uses, and that is given to no other caller while this process lives, here or in another process."""
    for port in DICE.sample(CANDIDATES, min(len(CANDIDATES), 200)):
        if _can_be_bound(port) and _reserve(port):
            return port
    raise RuntimeError(f"no free port in {CANDIDATES}")


def _can_be_bound(port: int) -> bool:
    """On every address, and without SO_REUSEADDR: nor does a connection linger there."""
    with socket.socket() as probe:
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def _reserve(port: int) -> bool:
    """A name that only one process can hold, and that the kernel takes back at its end: unix(7), abstract sockets."""
    with socket.socket(socket.AF_UNIX) as name:
        try:
            name.bind(f"\0qwen-fp8-ops-tests-port-{port}")
        except OSError:
            return False
        name.detach()  # stays open
    return True
