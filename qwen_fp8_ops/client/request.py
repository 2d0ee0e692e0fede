"""What is sent: the API's address in one form, the headers, the body. Pure, shared by blocking and asynchronous clients."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from qwen_fp8_ops import __version__
from qwen_fp8_ops.errors import ConfigError

Message = Mapping[str, Any]
KEY = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class Limits:
    """Longest waits.

    ``read_seconds`` is the silence allowed between two pieces of an answer. It is long: a request may queue behind others, and
    without streaming nothing comes until all the thinking is done.
    """

    connect_seconds: float = 10.0
    write_seconds: float = 60.0
    read_seconds: float = 900.0


DEFAULT_LIMITS = Limits()


def api_root(base_url: str) -> str:
    """The API's address with its /v1 and no slash behind it; a missing ``http://`` or ``/v1`` is added.

    Raises:
        ConfigError: it is not the address of a web server, or it holds a password (code ``bad-url``).
    """
    text = base_url.strip()
    text = text if "://" in text else f"http://{text}"
    example = "Give an address such as http://127.0.0.1:8010/v1"
    try:
        parts = urlsplit(text)
        plain = text.isascii() and text.isprintable() and " " not in text
        usable = plain and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False  # a port that is none, or brackets that do not pair up
    if not usable:
        raise ConfigError(f"{base_url!r} is not the address of an API", code="bad-url", fix=example)
    if "@" in parts.netloc:
        raise ConfigError("The address of the API holds a user name or a password", code="bad-url", fix=f"{example}, and put the key into a file.")
    if parts.query or parts.fragment:
        raise ConfigError(f"{base_url!r} has parts behind the path", code="bad-url", fix=example)
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path if path.endswith('/v1') else path + '/v1'}"


def headers(key: str) -> dict[str, str]:
    """
    Raises:
        ConfigError: the key cannot be sent (code ``bad-key``). The message does not hold it.
    """
    common = {"User-Agent": f"qwen-fp8-ops/{__version__}", "Content-Type": "application/json"}
    if not key:
        return common
    if not KEY.fullmatch(key):
        raise ConfigError("The key holds spaces, line ends or letters outside ASCII", code="bad-key", fix="Look at the file the key comes from.")
    return {**common, "Authorization": f"Bearer {key}"}


def chat_body(messages: Sequence[Message], *, model: str | None, stream: bool, sampling: Mapping[str, Any]) -> bytes:
    """The body of POST /chat/completions. Sampling values that are None are left out, so the server's own defaults hold.

    Raises:
        ConfigError: something in it cannot be sent as JSON: NaN, or text that is not Unicode (code ``bad-request``).
    """
    payload: dict[str, Any] = {"messages": [*messages], "stream": stream}
    if model is not None:
        payload["model"] = model
    if stream:
        payload["stream_options"] = {"include_usage": True}
    payload |= {name: value for name, value in sampling.items() if value is not None}
    try:
        return json.dumps(payload, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        raise ConfigError("A text of the request is not valid Unicode", code="bad-request", fix="Give it in UTF-8.") from error
    except ValueError as error:
        raise ConfigError(f"The request cannot be sent as JSON: {error}", code="bad-request") from error
