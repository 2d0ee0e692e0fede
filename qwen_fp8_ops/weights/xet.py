"""Bytes from Xet storage, where the Hub keeps most weights: many chunks at a time, from any position on. The work is hf-xet's."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from qwen_fp8_ops.weights.hub_errors import HubError

YES = frozenset({"1", "on", "yes", "true"})


@cache
def is_available() -> bool:
    """Is hf-xet here, able to stream, and not switched off by HF_HUB_DISABLE_XET? Without it files come by plain HTTP."""
    if os.environ.get("HF_HUB_DISABLE_XET", "").lower() in YES or importlib.util.find_spec("hf_xet") is None:
        return False
    import hf_xet  # type: ignore[import-untyped]

    return hasattr(hf_xet, "XetSession") and hasattr(hf_xet.XetSession, "new_download_stream_group")


@cache
def _session() -> Any:
    import hf_xet

    return hf_xet.XetSession()


@contextmanager
def reading(endpoint: str, repo: str, commit: str, address: str, size: int, begin: int, headers: dict[str, str]) -> Iterator[Iterator[bytes]]:
    """The file's bytes from ``begin`` on, in order.

    Raises:
        HubError: at any moment of the transfer.
    """
    import hf_xet

    anonymous = {key: value for key, value in headers.items() if key.lower() != "authorization"}
    refresh = f"{endpoint}/api/models/{repo}/xet-read-token/{commit}"
    try:
        group = _session().new_download_stream_group(token_refresh_url=refresh, token_refresh_headers=headers, custom_headers=anonymous)
        with group:
            stream = group.download_stream(hf_xet.XetFileInfo(address, size), start=begin)
            try:
                yield iter(stream)
            finally:
                stream.cancel()
    except (OSError, RuntimeError) as error:
        reason = str(error).partition(", domain:")[0]  # what follows is an address with a signature
        raise HubError(f"The Hub's Xet storage fails: {reason}", code="xet", passing=True, fix="Run it again to go on; HF_HUB_DISABLE_XET=1 takes the plain way at once.") from error
