"""Connections of a fetch: a name is resolved once, each address is judged, and what was judged is what is connected to.

There is no second look-up between judging and connecting, which DNS rebinding lives on; and as the resolver has made an address of
it, no spelling of one ("2130706433", "0x7f.1", "[::ffff:127.0.0.1]") is read in two ways.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import httpcore

from qwen_fp8_ops.gate.fetch_addresses import Address

RESOLVERS = ThreadPoolExecutor(8, thread_name_prefix="media-resolver")
"""Threads of our own: names of a hostile domain that are slow to resolve must not keep the engine's threads waiting."""

Judge = Callable[[Address], str]


class ClosedAddressError(Exception):
    """``kind`` is what is wrong with the only addresses there are. Which they are is not told: it would map our network to a client."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class JudgedNetwork(httpcore.AsyncNetworkBackend):
    """
    Args:
        refuses: says of an address why it may not be connected to; empty when it may.
    """

    def __init__(self, refuses: Judge) -> None:
        self._refuses = refuses
        self._sockets = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's own interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """
        Raises:
            ClosedAddressError: every address of the host is refused.
            httpcore.ConnectError: the name is not known, or nobody answers at its addresses.
        """
        addresses = await resolve(host, port)
        judged = [(address, self._refuses(address)) for address in addresses]
        open_ones = [address for address, kind in judged if not kind]
        if not open_ones:
            raise ClosedAddressError(judged[0][1])
        for address in open_ones[:-1]:
            try:
                return await self._sockets.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except httpcore.ConnectError:
                continue
        return await self._sockets.connect_tcp(str(open_ones[-1]), port, timeout, local_address, socket_options)


async def resolve(host: str, port: int) -> list[Address]:
    """
    Raises:
        httpcore.ConnectError: there is no such name.
    """
    ask = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        found = await asyncio.get_running_loop().run_in_executor(RESOLVERS, ask)
    except (OSError, UnicodeError, OverflowError) as error:
        raise httpcore.ConnectError("its name is not known") from error
    return list(dict.fromkeys(ip_address(entry[4][0]) for entry in found))
