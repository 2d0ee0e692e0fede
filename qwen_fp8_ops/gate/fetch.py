"""Fetching a picture or a film by URL for a client, from a host that may be hostile, at an address that may not be what it seems.

What holds while a fetch runs: the host is allowed (``MediaRules``), the address that is connected to has been judged
(``fetch_network``), a redirect is an answer like any other and no way on, the body ends at the limit, and all of it together has one
time limit. A proxy (HTTPS_PROXY and the like) is not used: behind it nobody could know what is connected to.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import ssl
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

import httpcore
import httpx

from qwen_fp8_ops import __version__
from qwen_fp8_ops.gate.fetch_addresses import Address, forms
from qwen_fp8_ops.gate.fetch_answer import FailingHost, MediaProblem, Wanted, take
from qwen_fp8_ops.gate.fetch_local import read_local
from qwen_fp8_ops.gate.fetch_network import ClosedAddressError, JudgedNetwork
from qwen_fp8_ops.gate.fetch_rules import MediaRules
from qwen_fp8_ops.gate.media_budget import SpentError
from qwen_fp8_ops.outside.media_health import PICTURE_PATH
from qwen_fp8_ops.outside.net import own_addresses

PAUSES_SECONDS = (0.2, 1.0)
"""Before another try, when a host did not answer at all or said that it fails."""

CONNECT_SECONDS = 5.0
"""For one address of a host, which may have several."""

PORTS = {"http": 80, "https": 443}
LONGEST_NAME = 100

Judge = Callable[[Address], str]


class FetchError(Exception):
    """Why there is no media, in a sentence for the client: the host's name and the rule. The rest of a URL is never in it."""


class MediaFetcher:
    """
    Args:
        own: addresses of this machine. Public or not, what listens on them trusts its neighbours.
    """

    def __init__(self, rules: MediaRules, own: Callable[[], frozenset[Address]] = own_addresses) -> None:
        self.rules = rules
        self._own = own

    async def fetch(self, text: str, wanted: Wanted) -> bytes:
        """
        Raises:
            FetchError: whatever went wrong.
        """
        url = parse(text)
        name = url.host[:LONGEST_NAME]
        try:
            async with asyncio.timeout(wanted.seconds):
                return await self._bytes(url, wanted)
        except TimeoutError as error:
            raise FetchError(f"{name}: it did not send the media within {wanted.seconds:g} s.") from error
        except ClosedAddressError as error:
            raise FetchError(f"{name}: it leads to an address that is {error.kind}, and media is fetched from public addresses only.") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise FetchError(f"{name}: it cannot be reached: {error or type(error).__name__}.") from error
        except (MediaProblem, SpentError, OSError) as error:
            raise FetchError(f"{name}: {error}.") from error

    async def _bytes(self, url: httpx.URL, wanted: Wanted) -> bytes:
        if self.rules.is_our_server(url.host, port_of(url)):
            # The server's own picture lies in no folder: a probe asks for it, to see whether the server can be reached from here.
            if self.rules.server_root and url.raw_path != PICTURE_PATH.encode():
                return await asyncio.to_thread(read_local, self.rules.server_root, url.raw_path, wanted)
            return await patiently(url, wanted, judge=lambda address: "")
        if not any(map(self.rules.allows_host, spellings(url))):
            raise MediaProblem(
                "a media URL must be from one of the allowed domains, our media server and what ALLOWED_MEDIA_DOMAINS names: "
                "put the file into the media server's folder, or send it as a data URL"
            )
        return await patiently(url, wanted, self._judge())

    def _judge(self) -> Judge:
        own = self._own()

        def judge(address: Address) -> str:
            ours = not own.isdisjoint(forms(address)) and not self.rules.permits(address)
            return self.rules.refuses(address) or ("this machine's own" if ours else "")

        return judge


async def patiently(url: httpx.URL, wanted: Wanted, judge: Judge) -> bytes:
    """``once``, and again when the host gave no answer or one that says it fails."""
    for pause in PAUSES_SECONDS:
        try:
            return await once(url, wanted, judge)
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, FailingHost):
            await asyncio.sleep(pause)
    return await once(url, wanted, judge)


async def once(url: httpx.URL, wanted: Wanted, judge: Judge) -> bytes:
    """A connection of its own for each fetch: none is kept that was judged for another host."""
    target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    limits = {"timeout": {"connect": CONNECT_SECONDS}}
    async with (
        httpcore.AsyncConnectionPool(ssl_context=certificates(), network_backend=JudgedNetwork(judge)) as pool,
        pool.stream("GET", target, headers=headers(url), extensions=limits) as response,
    ):
        return await take(response, url, wanted)


def headers(url: httpx.URL) -> list[tuple[bytes, bytes]]:
    found = [
        (b"Host", url.netloc),
        (b"User-Agent", f"qwen-fp8-ops/{__version__}".encode()),
        (b"Accept", b"*/*"),
        (b"Accept-Encoding", b"identity"),  # a limit on what is received is then one on what is kept
        (b"Connection", b"close"),
    ]
    if url.userinfo:
        found.append((b"Authorization", b"Basic " + base64.b64encode(unquote_to_bytes(url.userinfo))))
    return found


def parse(text: str) -> httpx.URL:
    """The URL, read once: whoever judges it and whoever connects see the same host.

    Raises:
        FetchError: it is none that can be fetched.
    """
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, TypeError) as error:
        raise FetchError("The media URL cannot be read: give an http, https or data URL.") from error
    if url.scheme not in PORTS:
        raise FetchError("The media URL must be an http, https or data URL; a file is asked for from our media server.")
    if not url.host or not 0 < port_of(url) < 65536:
        raise FetchError("The media URL names no host, or no port that there can be.")
    return url


def spellings(url: httpx.URL) -> tuple[str, str]:
    """The host in its own letters, and as it is looked up (``xn--...``): the operator may have named either."""
    return url.host, url.raw_host.decode("ascii")


def port_of(url: httpx.URL) -> int:
    return PORTS[url.scheme] if url.port is None else url.port


@functools.cache
def certificates() -> ssl.SSLContext:
    """Whom to trust: certifi's list, or SSL_CERT_FILE and SSL_CERT_DIR. Read once; it takes tens of milliseconds."""
    return httpx.create_ssl_context()
