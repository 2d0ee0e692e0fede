"""PORT=auto and MEDIA_PORT=auto: a free port of this host for each, before the plan is made, so that the plan tells numbers."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace

from qwen_fp8_ops.config.kinds import AUTO_PORT
from qwen_fp8_ops.config.load import Configuration, Source
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import port_claim
from qwen_fp8_ops.outside.net import can_bind

HOST_OF = {"PORT": "host", "MEDIA_PORT": "media_host"}


def with_ports(configuration: Configuration, *, seed: str, keep: Mapping[str, int]) -> Configuration:
    """The same settings with a number for each port that was left to us; it is claimed until this process ends.

    Args:
        seed: where the search begins; services with different ones hardly ever meet.
        keep: ports that a running service of this folder has already, by key.

    Raises:
        OpsError: no port of this host is free.
    """
    chosen: dict[str, int] = {}
    for key, host in HOST_OF.items():
        if getattr(configuration.settings, key.lower()) == AUTO_PORT:
            taken = {configuration.settings.port, configuration.settings.media_port, *chosen.values()}
            chosen[key] = keep.get(key) or _free(getattr(configuration.settings, host), f"{seed} {key}", taken)
    if not chosen:
        return configuration
    old = configuration.settings
    settings = replace(old, port=chosen.get("PORT", old.port), media_port=chosen.get("MEDIA_PORT", old.media_port))
    sources = {**configuration.sources, **{key: Source(configuration.sources[key].origin, str(port)) for key, port in chosen.items()}}
    return replace(configuration, settings=settings, sources=sources)


def _free(host: str, seed: str, taken: set[int]) -> int:
    for port in _candidates(seed):
        if port not in taken and port_claim.claim(port):
            if can_bind(host, port):
                return port
            port_claim.give_back(port)
    raise OpsError(f"No port of {host} is free", code="no-free-port", fix="Name one: --set PORT=...")


def _candidates(seed: str) -> Iterator[int]:
    ports = port_claim.outside_ephemeral()
    start = zlib.crc32(seed.encode()) % len(ports)
    yield from (*ports[start:], *ports[:start])
