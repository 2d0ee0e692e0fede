"""The turns of a conversation, as the API takes them. Images and videos stand before the text, which is how the model was trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qwen_fp8_ops.client.media_files import MediaServer, media_url
from qwen_fp8_ops.client.media_types import Kind

Part = dict[str, Any]


def media_part(source: str | Path, kind: Kind, *, server: MediaServer | None = None, limit_bytes: int | None = None) -> Part:
    """One image or video of a message; see ``media_files.media_url``.

    Raises:
        MediaError: the file cannot be sent.
    """
    url = media_url(source, kind, server=server, limit_bytes=limit_bytes)
    return {"type": f"{kind}_url", f"{kind}_url": {"url": url}}


def user_message(text: str, media: Sequence[Part] = ()) -> Part:
    return {"role": "user", "content": [*media, {"type": "text", "text": text}] if media else text}


def system_message(text: str) -> Part:
    return {"role": "system", "content": text}


def assistant_message(text: str) -> Part:
    """An earlier answer. Its thinking is left out, as the model's own chat template would do."""
    return {"role": "assistant", "content": text}
