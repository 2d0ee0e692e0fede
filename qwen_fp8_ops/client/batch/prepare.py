"""From an item to the bytes of its request, made just before they are sent. Runs in the threads of a pool."""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass
from typing import Any

from qwen_fp8_ops.client.batch.images import fit
from qwen_fp8_ops.client.batch.item import Failure, Item, Outcome, Print, Recipe, Source
from qwen_fp8_ops.client.media_files import MediaError, MediaServer, media_url, open_media, plain_size
from qwen_fp8_ops.client.messages import system_message, user_message
from qwen_fp8_ops.client.request import chat_body
from qwen_fp8_ops.errors import OpsError

NOTHING = Print("", 0, 0)


@dataclass(frozen=True)
class Sending:
    """Where files go by name instead of content, and how large a request may be; None is unknown."""

    server: MediaServer | None = None
    limit_bytes: int | None = None


@dataclass(frozen=True)
class Prepared:
    """``body`` is the whole request, with its images inside."""

    item: Item
    asked: str
    prints: tuple[Print, ...]
    body: bytes


def prepare(item: Item, recipe: Recipe, sending: Sending) -> Prepared:
    """
    Raises:
        MediaError: a file of it cannot be sent.
        ConfigError: its text is not Unicode.
    """
    parts, prints = [], []
    for source in item.media:
        url, found = _media(source, recipe.max_pixels, sending)
        parts.append({"type": f"{source.kind}_url", f"{source.kind}_url": {"url": url}})
        prints.append(found)
    system = [system_message(recipe.system)] if recipe.system else []
    sampling: dict[str, Any] = dict(recipe.sampling)
    if item.seed is not None:
        sampling["seed"] = item.seed
    body = chat_body([*system, user_message(item.prompt, parts)], model=recipe.model or None, stream=False, sampling=sampling)
    if sending.limit_bytes is not None and len(body) > sending.limit_bytes:
        raise MediaError(
            f"The request of {item.id} has {len(body) / 1e6:.1f} MB; the service takes {sending.limit_bytes / 1e6:g} MB",
            code="too-large",
            fix="Give a smaller --max-pixels, put the files under the media server's root, or raise MAX_BODY_MB in config.env.",
        )
    return Prepared(item, recipe.asked(item), tuple(prints), body)


def failed_before(item: Item, recipe: Recipe, error: OpsError) -> Outcome:
    """The outcome of an item that could not even be sent."""
    failure = Failure(error.code, error.message)
    return Outcome(item.id, recipe.asked(item), tuple(look_at(source) for source in item.media), tries=0, failure=failure)


def look_at(source: Source) -> Print:
    """A file's size and time, without its content; ``NOTHING`` for what is no file here."""
    if source.is_url:
        return NOTHING
    try:
        found = os.stat(source.path)
    except (OSError, ValueError):
        return NOTHING
    return Print("", found.st_size, found.st_mtime_ns)


def content_hash(source: Source) -> str:
    """
    Raises:
        MediaError: the file cannot be read.
    """
    if source.is_url:
        return ""
    with open_media(source.path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _media(source: Source, max_pixels: int, sending: Sending) -> tuple[str, Print]:
    """
    Raises:
        MediaError: it cannot be sent.
    """
    if source.is_url:
        return source.path, NOTHING
    with open_media(source.path) as file:
        plain_size(file, source.path)
        found = os.fstat(file.fileno())
        if source.kind == "video":
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            url = media_url(source.path, "video", server=sending.server, limit_bytes=sending.limit_bytes)
            return url, Print(sha256, found.st_size, found.st_mtime_ns)
        data = file.read()
    image = fit(data, source.path, max_pixels)
    offered = sending.server.url_of(source.path) if sending.server and not image.changed else None
    url = offered or f"data:{image.mime};base64,{base64.b64encode(image.data).decode('ascii')}"
    return url, Print(hashlib.sha256(data).hexdigest(), found.st_size, found.st_mtime_ns)
