"""Request in, answer out: everything the media server does, without a socket."""

from __future__ import annotations

import errno
import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from qwen_fp8_ops.media import conditions, kinds, listing
from qwen_fp8_ops.media.message import Answer, FileSlice, Headers, Later, Request, plain
from qwen_fp8_ops.media.picture import PICTURE
from qwen_fp8_ops.outside.jail import ABSENT, Found, Jail, read_target
from qwen_fp8_ops.outside.media_health import HEALTH_PATH, PICTURE_PATH, MediaHealth, root_id

READ_AT_ONCE_BYTES = 64 * 1024
"""Up to this size a body is read and sent with its head in one go; above it the kernel sends the file."""


@dataclass(frozen=True)
class Site:
    """One root and what is served of it."""

    jail: Jail
    health: bytes

    @classmethod
    def of(cls, root: Path) -> Site:
        return cls(Jail(root), json.dumps(MediaHealth(root_id(root), os.getpid()).as_json()).encode() + b"\n")


def answer(site: Site, request: Request) -> Answer | Later:
    """
    Raises:
        OSError: too many open files, a failing disk: 503, and something to log.
    """
    if request.refused not in (0, 405):
        return plain(request.refused)
    if request.method not in ("GET", "HEAD"):
        return plain(405, ("Allow", "GET, HEAD"))
    path = read_target(request.target)
    if path is None:
        return plain(404)
    if path == HEALTH_PATH[1:]:
        return _made("application/json", site.health)
    if path == PICTURE_PATH[1:]:
        return functools.partial(_picture, site.jail)
    found = site.jail.look(path)
    if found is None:
        return plain(404)
    with found:
        if found.is_folder and (path.endswith("/") or not path):
            return functools.partial(_folder, site.jail, path, request)
        if found.is_folder:
            return plain(301, ("Location", f"/{quote(os.fsencode(path))}/"))
        if not found.is_file or path.endswith("/"):
            return plain(404)
        return _file(found, request)


def _file(found: Found, request: Request) -> Answer:
    size = found.stat.st_size
    version = conditions.Version.of(found.stat.st_mtime_ns, size)
    about: Headers = [("ETag", version.etag), ("Last-Modified", version.modified), ("Cache-Control", "no-cache"), ("Accept-Ranges", "bytes")]
    if conditions.is_unchanged(request.headers, version):
        return Answer(304, about)
    try:
        span = conditions.wanted_span(request.headers, version, size) if request.method == "GET" else None
    except conditions.UnsatisfiableError:
        return plain(416, ("Content-Range", f"bytes */{size}"), *about)
    status, start, count = (206, span.start, span.count_bytes) if span else (200, 0, size)
    kind = kinds.content_type(found.path)
    about += [("Content-Type", kind), ("Content-Length", str(count))]
    if span:
        about.append(("Content-Range", f"bytes {span.start}-{span.end - 1}/{size}"))
    if kinds.is_active(kind):
        about.append(("Content-Security-Policy", "sandbox"))
    try:
        descriptor = found.open()
    except OSError as error:
        if error.errno in ABSENT:
            return plain(404)
        raise
    if request.method == "GET" and count > READ_AT_ONCE_BYTES:
        return Answer(status, about, file=FileSlice(descriptor, start, count))
    try:
        body = os.pread(descriptor, count, start) if request.method == "GET" else b""
    finally:
        os.close(descriptor)
    if request.method == "GET" and len(body) != count:
        raise OSError(errno.EAGAIN, "the file became shorter while it was read")
    return Answer(status, about, body)


def _folder(jail: Jail, path: str, request: Request) -> Answer:
    folder = listing.read_folder(jail, path)
    if folder is None:
        return plain(404)
    if "application/json" in request.headers.get("accept", ""):
        return _made("application/json", listing.as_json(folder), ("Vary", "Accept"))
    policy = ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
    return _made("text/html; charset=utf-8", listing.as_html(folder), ("Vary", "Accept"), policy)


def _picture(jail: Jail) -> Answer:
    """
    Raises:
        OSError: the root cannot be read.
    """
    with os.scandir(jail.root) as entries:
        next(entries, None)
    return _made("image/png", PICTURE)


def _made(content_type: str, body: bytes, *headers: tuple[str, str]) -> Answer:
    return Answer(200, [("Content-Type", content_type), ("Content-Length", str(len(body))), ("Cache-Control", "no-cache"), *headers], body)
