"""From what a person names (a path, a URL) to a URL that the engine can read.

A local file becomes a ``data:`` URL, or, where it lies under the root of a media server that the engine can reach, that server's URL:
then only the name travels and the file is read where it lies.
"""

from __future__ import annotations

import base64
import os
import re
import stat
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from qwen_fp8_ops.client.media_types import HEAD_BYTES, Kind, MediaType, describe, detect
from qwen_fp8_ops.errors import OpsError

URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://|(?P<data>data):", re.IGNORECASE)
PASSED_ON = frozenset({"http", "https", "data"})


class MediaError(OpsError):
    """A file that cannot be sent. Codes: no-such-file, unreadable-file, empty-file, not-a-file, wrong-media, missing-package, too-large, bad-url."""

    default_code = "bad-media"


@dataclass(frozen=True)
class MediaServer:
    """``root``: the folder that the server at ``url`` offers, as this machine sees it."""

    root: Path
    url: str

    def url_of(self, path: str | Path) -> str | None:
        """Where the server offers this file; None when it does not.

        That is: outside the root once symlinks are followed, hidden by a dot, or with a backslash in its name.
        """
        root, real = os.path.realpath(self.root), os.path.realpath(path)
        parts = os.path.relpath(real, root).split(os.sep)
        if parts[0] == os.pardir or any(part.startswith(".") or "\\" in part for part in parts):
            return None
        return "/".join([self.url.rstrip("/"), *(quote(os.fsencode(part), safe="") for part in parts)])


def media_url(source: str | Path, kind: Kind, *, server: MediaServer | None = None, limit_bytes: int | None = None) -> str:
    """The URL to put into a request. http, https and data URLs are passed on as they are.

    Args:
        limit_bytes: longest data URL; None is no limit. A file that the media server offers has none.

    Raises:
        MediaError: the file is missing, unreadable, empty, no image or video (as ``kind`` asks), or too large.
    """
    text = str(source)
    found = URL.match(text)
    if found and not os.path.exists(text):
        scheme = (found["scheme"] or found["data"]).lower()
        if scheme not in PASSED_ON:
            message = f"The engine cannot fetch {shown(text)}: {scheme} is neither http, https nor data"
            raise MediaError(message, code="bad-url", fix="Give a path or an http URL.")
        return text
    path = Path(text)
    with open_media(path) as file:
        size_bytes = plain_size(file, path)
        head = file.read(HEAD_BYTES)
        media = _checked_type(head, kind, path)
        offered = server.url_of(path) if server else None
        if offered:
            return offered
        prefix = f"data:{media.mime};base64,"
        encoded_bytes = len(prefix) + 4 * -(-size_bytes // 3)
        if limit_bytes is not None and encoded_bytes > limit_bytes:
            raise _too_large(path, size_bytes, limit_bytes, server)
        return prefix + base64.b64encode(head + file.read()).decode()


def open_media(path: str | Path) -> BufferedReader:
    """
    Raises:
        MediaError: it is missing, unreadable or a folder.
    """
    try:
        # Without O_NONBLOCK a pipe that nobody writes to would hold us before we could look what it is.
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except FileNotFoundError as error:
        fix = "Check the path; a relative one starts in the current folder."
        raise MediaError(f"There is no file {shown(path)}", code="no-such-file", fix=fix) from error
    except IsADirectoryError as error:
        raise _not_a_file(path, "a folder") from error
    except ValueError as error:
        raise MediaError(f"{shown(path)} cannot be a file's name: {error}", code="no-such-file", fix="Check the path.") from error
    except OSError as error:
        fix = "Look at its rights: ls -ld PATH"
        raise MediaError(f"{shown(path)} cannot be read: {error.strerror}", code="unreadable-file", fix=fix) from error


def plain_size(file: BinaryIO, path: str | Path) -> int:
    """Bytes of an open file.

    Raises:
        MediaError: it is empty, or no plain file.
    """
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        raise _not_a_file(path, "not a plain file")
    if not found.st_size:
        raise MediaError(f"{shown(path)} is empty", code="empty-file", fix="Was it copied or downloaded to its end?")
    return found.st_size


def _not_a_file(path: str | Path, what: str) -> MediaError:
    return MediaError(f"{shown(path)} is {what}", code="not-a-file", fix="Name a single image or video file.")


def _checked_type(head: bytes, kind: Kind, path: Path) -> MediaType:
    media = detect(head)
    if media is None or media.kind != kind:
        raise wrong_media(path, head, kind)
    return media


def wrong_media(path: str | Path, head: bytes, kind: Kind) -> MediaError:
    """The error for a file that begins with ``head`` and is not of the kind it was given as."""
    article = {"image": "an image", "video": "a video"}
    media = detect(head)
    if media is None:
        return MediaError(
            f"{shown(path)} is not {article[kind]} that the service takes: it is {describe(head)}",
            code="wrong-media",
            fix="Taken are PNG, JPEG, WebP, GIF, BMP and TIFF images, and MP4, WebM, MKV, AVI and MOV videos.",
        )
    message = f"{shown(path)} is {article[media.kind]} ({media.mime}), not {article[kind]}"
    return MediaError(message, code="wrong-media", fix=f"Give it as {article[media.kind]}: --{media.kind}")


def _too_large(path: Path, size_bytes: int, limit_bytes: int, server: MediaServer | None) -> MediaError:
    fix = f"Put it under the media server's folder {shown(server.root)}, then only its name is sent; or" if server else "Make it smaller, or"
    return MediaError(
        f"{shown(path)} has {size_bytes / 1e6:.1f} MB, a third more when it is sent; a request may have {limit_bytes / 1e6:g} MB",
        code="too-large",
        fix=f"{fix} raise MAX_BODY_MB in config.env.",
    )


def shown(path: str | Path) -> str:
    """A name that can be printed everywhere, also where it is not valid UTF-8 or holds line ends."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)[:500]
