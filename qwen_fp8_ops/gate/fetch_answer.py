"""What a host answers to a fetch: is it media of the kind that was asked for, and how much of it is taken in."""

from __future__ import annotations

from dataclasses import dataclass, field

import httpcore
import httpx

from qwen_fp8_ops.gate.media_budget import MediaBudget

OK = (200, 203)
REDIRECTS = (301, 302, 303, 307, 308)
TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)

NEUTRAL_TYPES = ("", "application/octet-stream", "binary/octet-stream", "application/mp4", "application/ogg")
"""Types of servers that do not know or do not say; the second is S3's."""

TYPES = {"image": ("image/",), "video": ("video/", "image/"), "audio": ("audio/", "video/")}
"""By the kind that was asked for, how a type may begin: an animation can be a film, and a film has sound."""

LONGEST_WORD = 100


class MediaProblem(Exception):  # noqa: N818 - it is no error of ours
    """Why there is no media, as the end of a sentence that begins with the host's name. Never more of the URL: secrets are in there."""


class FailingHost(MediaProblem):
    """The host said that it failed; asked again it may not."""


@dataclass(frozen=True)
class Wanted:
    """``kind`` is image, video or audio; ``seconds`` are for the whole fetch: every try, and the pauses between them. ``most_bytes`` are
    this one's; ``budget`` is of all media of the request.
    """

    kind: str
    most_bytes: int
    seconds: float
    budget: MediaBudget = field(default_factory=MediaBudget)


async def take(response: httpcore.Response, url: httpx.URL, wanted: Wanted) -> bytes:
    """The body, when it is what was wanted.

    Raises:
        MediaProblem: it is not, or it is more than the limit, whatever its length was said to be.
        SpentError: with it the request's media are more than all of them may be.
    """
    headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
    check_status(response.status, headers, url)
    check_type(headers, wanted.kind)
    announced = headers.get(b"content-length", "")
    if announced.isdecimal():
        if int(announced) > wanted.most_bytes:
            raise too_large(wanted.most_bytes)
        wanted.budget.check(int(announced))
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in response.aiter_stream():
            size += len(chunk)
            if size > wanted.most_bytes:
                raise too_large(wanted.most_bytes)
            wanted.budget.spend(len(chunk))
            chunks.append(chunk)
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise MediaProblem(f"it broke off after {size} bytes") from error
    return b"".join(chunks)


def check_status(status: int, headers: dict[bytes, str], url: httpx.URL) -> None:
    if status in REDIRECTS:
        raise MediaProblem(f"it answers with a redirect ({status}){to_host(headers, url)}, and redirects are not followed: send the URL it ends at")
    if status in TRY_AGAIN:
        raise FailingHost(f"it answers {status}")
    if status not in OK:
        raise MediaProblem(f"it answers {status}")


def to_host(headers: dict[bytes, str], url: httpx.URL) -> str:
    try:
        host = url.join(headers[b"location"]).host
    except (KeyError, httpx.InvalidURL):
        return ""
    return f" to {host[:LONGEST_WORD]}" if host.isprintable() and host else ""


def check_type(headers: dict[bytes, str], kind: str) -> None:
    """The decoders look at bytes alone. A page or a document is told from media here, by what its host says it is."""
    if headers.get(b"content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise MediaProblem("it sends a compressed body, which was not asked for")
    given = headers.get(b"content-type", "").partition(";")[0].strip().lower()
    if given not in NEUTRAL_TYPES and not given.startswith(TYPES[kind]):
        shown = repr(given[:LONGEST_WORD])
        raise MediaProblem(f"it sends {shown}, which is no {kind}")


def too_large(limit_bytes: int) -> MediaProblem:
    return MediaProblem(f"the media is larger than {limit_bytes} bytes")
