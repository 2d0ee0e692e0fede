"""vLLM's media connector with our rules: pictures and films by URL come through ``MediaFetcher``, in both its ways of asking.

vLLM makes one for each message that has media, of the class that VLLM_MEDIA_CONNECTOR names. Its own connector fetches from any
address, follows redirects, judges only the name in the first URL, and lets some decoders' errors out as 500
(vllm/multimodal/media/connector.py, 0.32). This is the only module of the gate that imports vLLM.
"""

from __future__ import annotations

import asyncio
import functools
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from qwen_fp8_ops.gate import CONNECTOR
from qwen_fp8_ops.gate.app import configured_path
from qwen_fp8_ops.gate.fetch import FetchError, MediaFetcher
from qwen_fp8_ops.gate.fetch_answer import Wanted
from qwen_fp8_ops.gate.fetch_rules import MediaRules
from qwen_fp8_ops.gate.live import LiveConfig
from qwen_fp8_ops.gate.media_budget import CURRENT, MediaBudget

envs: Any = import_module("vllm.envs")
exceptions: Any = import_module("vllm.exceptions")
media: Any = import_module("vllm.multimodal.media")
theirs: Any = import_module("vllm.multimodal.media.connector")
BombError: Any = import_module("PIL.Image").DecompressionBombError

MIB = 1 << 20
FALLBACK_SECONDS = 30
"""For one try where vLLM names no time; all fetches of 0.32 do."""

UNREADABLE = (ValueError, TypeError, RuntimeError, OSError, EOFError, AssertionError, LookupError, ArithmeticError, SyntaxError, BombError)
"""What decoders raise over bytes that are no media, or broken ones; PIL's PNG reader has SyntaxError among them."""

MEMORY_ADDRESS = re.compile(r"<[^<>]* object at 0x[0-9a-f]+>")


@theirs.MEDIA_CONNECTOR_REGISTRY.register(CONNECTOR)
class GuardedMediaConnector(theirs.MediaConnector):  # type: ignore[misc]
    """
    Args:
        fetcher: by the gate's configuration as it is now, unless a test brings its own.
    """

    def __init__(self, *args: Any, fetcher: MediaFetcher | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fetcher = fetcher or MediaFetcher(media_rules())
        # Without a gate before us the messages of a request count each for itself.
        self._budget = CURRENT.get() or MediaBudget(self._fetcher.rules.most_bytes)

    def load_from_url(self, url: str, media_io: Any, *, fetch_timeout: int | None = None) -> Any:
        if load := self._inline(url, media_io):
            return decode(load, media_io)
        with ThreadPoolExecutor(1, thread_name_prefix="media-fetch") as thread:  # this one may have an event loop of its own running
            data = thread.submit(asyncio.run, self._fetch(url, media_io, fetch_timeout)).result()
        return decode(functools.partial(media_io.load_bytes, data), media_io)

    async def load_from_url_async(self, url: str, media_io: Any, *, fetch_timeout: int | None = None) -> Any:
        load = self._inline(url, media_io)
        if load is None:
            data = await self._fetch(url, media_io, fetch_timeout)
            load = functools.partial(media_io.load_bytes, data)
        return await asyncio.get_running_loop().run_in_executor(theirs.global_thread_pool, decode, load, media_io)

    def _inline(self, url: str, media_io: Any) -> Callable[[], Any] | None:
        """How to load what needs no fetch: a data URL; a file, where --allowed-local-media-path opens a folder."""
        scheme = url[:5].lower()
        if scheme == "data:":
            return functools.partial(self._load_data_url, url, media_io)
        if scheme == "file:" and self.allowed_local_media_path is not None:
            return functools.partial(self._load_file_url, theirs.parse_url(url), media_io)
        return None

    async def _fetch(self, url: str, media_io: Any, seconds_a_try: int | None) -> bytes:
        """
        Raises:
            VLLMValidationError: there is nothing to be had; the client gets 400 and the reason.
        """
        tries = max(1, envs.VLLM_MEDIA_FETCH_MAX_RETRIES)
        wanted = Wanted(kind_of(media_io), most_bytes(media_io), float(seconds_a_try or FALLBACK_SECONDS) * tries, self._budget)
        try:
            return await self._fetcher.fetch(url, wanted)
        except FetchError as error:
            raise exceptions.VLLMValidationError(str(error)) from error


def decode(load: Callable[[], Any], media_io: Any) -> Any:
    """
    Raises:
        VLLMValidationError: these bytes are no such media, or more of it than the engine takes.
    """
    try:
        return load()
    except UNREADABLE as error:
        reason = MEMORY_ADDRESS.sub("the bytes", str(error)) or type(error).__name__
        raise exceptions.VLLMValidationError(f"The {kind_of(media_io)} cannot be read: {reason}") from error


def kind_of(media_io: Any) -> str:
    return "video" if isinstance(media_io, media.VideoMediaIO) else "audio" if isinstance(media_io, media.AudioMediaIO) else "image"


def most_bytes(media_io: Any) -> int:
    """The smaller of vLLM's two limits; VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB=0 is none."""
    size_mib: int = envs.VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB
    own: int | None = media_io.get_max_bytes()
    return min(size_mib * MIB if size_mib > 0 else sys.maxsize, own or sys.maxsize)


def media_rules() -> MediaRules:
    """
    Raises:
        OpsError: the gate has no configuration.
    """
    live = live_config(configured_path())
    live.refresh()
    return live.config.media


@functools.cache
def live_config(path: Path) -> LiveConfig:
    return LiveConfig(path)
