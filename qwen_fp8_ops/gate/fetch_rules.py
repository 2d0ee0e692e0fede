"""From where media may be fetched: part of what the supervisor tells the gate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from qwen_fp8_ops.errors import ConfigError
from qwen_fp8_ops.gate.fetch_addresses import Address, forms, kind_of
from qwen_fp8_ops.gate.media_budget import MOST_BYTES

ANY_HOST = "*"


@dataclass(frozen=True, kw_only=True)
class MediaRules:
    """
    Attributes:
        allowed: ALLOWED_MEDIA_DOMAINS: host names, ``*`` for any host, networks (10.20.0.0/16) or single addresses. Hosts are
            reached at public addresses, and at others only when a network or an address given here holds them.
        server: names by which our own media server is asked for. It is no foreign host: no rule on addresses holds for it.
        server_port: its port; 0 when there is none.
        server_root: MEDIA_ROOT, when it lies on this machine: files are then read, not fetched; else empty.
        most_bytes: MAX_MEDIA_MB, for all that is fetched or read for one request together.
    """

    allowed: tuple[str, ...] = ()
    server: tuple[str, ...] = ()
    server_port: int = 0
    server_root: str = ""
    most_bytes: int = MOST_BYTES

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "allowed": list(self.allowed), "server": list(self.server)}

    @classmethod
    def from_json(cls, value: Any) -> MediaRules:
        """
        Raises:
            TypeError: a key is missing or its value is of the wrong kind.
        """
        if not isinstance(value, Mapping):
            raise TypeError(f"{value!r} is not an object")
        port, root = value.get("server_port"), value.get("server_root")
        most_bytes = value.get("most_bytes", MOST_BYTES)  # a supervisor that runs since before an update of the code does not know the key
        if not isinstance(port, int) or isinstance(port, bool):
            raise TypeError(f"server_port is {port!r}, not a port")
        if not isinstance(root, str):
            raise TypeError(f"server_root is {root!r}, not a path")
        if not isinstance(most_bytes, int) or isinstance(most_bytes, bool) or most_bytes < 1:
            raise TypeError(f"most_bytes is {most_bytes!r}, not a number of bytes")
        return cls(allowed=_texts(value, "allowed"), server=_texts(value, "server"), server_port=port, server_root=root, most_bytes=most_bytes)

    def is_our_server(self, host: str, port: int) -> bool:
        return bool(self.server_port) and port == self.server_port and plain(host) in self.server

    def allows_host(self, host: str) -> bool:
        """May this host be asked at all? Where it leads to is another question: ``refuses``."""
        name = plain(host)
        if ANY_HOST in self.allowed or name in map(plain, self.allowed):
            return True
        network = as_network(name)
        return network is not None and any(network.version == known.version and network.subnet_of(known) for known in self._networks)  # type: ignore[arg-type]

    def refuses(self, address: Address) -> str:
        """The kind of an address that may not be connected to; empty when it may."""
        kind = kind_of(address)
        return "" if not kind or self.permits(address) else kind

    def permits(self, address: Address) -> bool:
        """Has the operator named this address, or a network that holds it?"""
        return any(form in network for form in forms(address) for network in self._networks if form.version == network.version)

    @cached_property
    def _networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(network for network in map(as_network, self.allowed) if network is not None)


def checked(allowed: Iterable[str]) -> tuple[str, ...]:
    """
    Raises:
        ConfigError: something that looks like a network is none.
    """
    allowed = tuple(allowed)
    for entry in allowed:
        if "/" in entry and as_network(entry) is None:
            raise ConfigError(f"ALLOWED_MEDIA_DOMAINS: {entry} is no network", fix="Write a network as ADDRESS/BITS, such as 10.20.0.0/16.")
    return allowed


def as_network(entry: str) -> IPv4Network | IPv6Network | None:
    """A network, or the one of a single address; None for a host name."""
    try:
        return ip_network(entry)
    except ValueError:
        return None


def plain(host: str) -> str:
    """A host as it is compared: small letters, without the dot that may end a full name."""
    return host.lower().removesuffix(".")


def _texts(value: Mapping[str, Any], key: str) -> tuple[str, ...]:
    found = value.get(key)
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise TypeError(f"{key} is {found!r}, not a list of texts")
    return tuple(found)
