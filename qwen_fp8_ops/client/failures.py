"""What can go wrong between a client and the API, and what to do then.

    OpsError
    └── ApiError                 status, retry_after_seconds, and one of the codes below
        ├── UnavailableError     nothing answers, or it takes no requests now (also NotRunningError, exit 3)
        └── SilentError          a time limit passed (also TimedOutError, exit 6)

Codes: unreachable, unavailable, timed-out, unauthorized, no-such-model, no-such-route, too-large, too-many-requests, bad-request,
redirected, server-error, broken-answer (cut off), bad-answer (not the OpenAI protocol). Pure functions, shared by blocking
and asynchronous clients.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypedDict

import httpx

from qwen_fp8_ops.client.request import Limits
from qwen_fp8_ops.errors import NotRunningError, OpsError, TimedOutError

LONGEST_WORDS = 600
LOOK = "See `qwen-fp8 status` and `qwen-fp8 logs`."
KEYS = "Give a valid key: --key-file FILE here, `api_key` in an OpenAI client. The service takes those of its API_KEYS_FILE."


ADDRESS = "Check the address: it is the part before /chat/completions."
SMALLER = "Send fewer or smaller files, or put them under the media server's root, or raise MAX_BODY_MB."
CHANGE = "Change the request; sent again as it is, it fails again."


class Facts(TypedDict):
    status: int
    retry_after_seconds: float | None


class ApiError(OpsError):
    """``status`` is the HTTP status, None when there was none. ``retry_after_seconds`` is what the server asked for, if it did."""

    default_code = "api-error"

    def __init__(self, message: str, *, fix: str = "", code: str = "", status: int | None = None, retry_after_seconds: float | None = None) -> None:
        super().__init__(message, fix=fix, code=code)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class UnavailableError(ApiError, NotRunningError):
    default_code = "unavailable"


class SilentError(ApiError, TimedOutError):
    default_code = "timed-out"


def http_failure(status: int, headers: Mapping[str, str], body: bytes, root: str) -> ApiError:
    """The error that an answer other than 2xx stands for. ``headers`` are asked by lower-case name."""
    words, wrong_model = _server_words(body)
    told = f": {words}" if words else ""
    wait = retry_after_seconds(headers.get("retry-after", ""), datetime.now(UTC))
    again = f"Try again in {max(1, math.ceil(wait))} s." if wait is not None else "Try again later."
    facts: Facts = {"status": status, "retry_after_seconds": wait}
    if status in (401, 403):
        return ApiError(f"{root} does not accept the key, or wants one (HTTP {status}){told}", code="unauthorized", fix=KEYS, **facts)
    if status == 404 and wrong_model:
        return ApiError(words, code="no-such-model", fix=f"Ask for a name that GET {root}/models lists, or name no model at all.", **facts)
    if status == 404:
        return ApiError(f"There is no OpenAI API at {root} (HTTP 404){told}", code="no-such-route", fix=ADDRESS, **facts)
    if status == 413:
        return ApiError(f"The request is too large for {root} (HTTP 413){told}", code="too-large", fix=SMALLER, **facts)
    if status == 429:
        return ApiError(f"Too many requests (HTTP 429){told}", code="too-many-requests", fix=again, **facts)
    if status == 503:
        return UnavailableError(f"The service takes no requests now (HTTP 503){told}", fix=f"{again} {LOOK}", **facts)
    if status in (400, 422):
        return ApiError(words or f"The request was refused (HTTP {status})", code="bad-request", fix=CHANGE, **facts)
    if 300 <= status < 400:
        elsewhere = _printable(headers.get("location", "?"))
        return ApiError(f"{root} sends elsewhere (HTTP {status}): {elsewhere}", code="redirected", fix="Use the address it names.", **facts)
    if status >= 500:
        return ApiError(f"The server failed (HTTP {status}){told}", code="server-error", fix=LOOK, **facts)
    return ApiError(f"{root} answered HTTP {status}{told}", **facts)


def transport_failure(error: httpx.RequestError, root: str, limits: Limits) -> ApiError:
    """The error for a request that got no answer, or only a part of one."""
    words = _printable(str(error)) or type(error).__name__
    if isinstance(error, httpx.ConnectTimeout):
        return SilentError(f"Nothing answers at {root} within {limits.connect_seconds:g} s", fix="Check the address; see `qwen-fp8 status`.")
    if isinstance(error, httpx.ReadTimeout):
        return SilentError(f"{root} was silent for {limits.read_seconds:g} s", fix="See `qwen-fp8 status`: is it busy? A longer --timeout waits longer.")
    if isinstance(error, httpx.TimeoutException):
        return SilentError(f"{root} did not take the request in time ({type(error).__name__})", fix=LOOK)
    if isinstance(error, httpx.ConnectError):
        fix = "Does it run? `qwen-fp8 status` tells; ./start_service.sh starts it."
        return UnavailableError(f"Nothing answers at {root} ({words})", code="unreachable", fix=fix)
    return broken_answer(root, words)


def broken_answer(root: str, why: str) -> ApiError:
    message = f"The connection to {root} broke before the answer was complete: {why}"
    return ApiError(message, code="broken-answer", fix=f"Ask again. {LOOK}")


def bad_answer(root: str, what: str) -> ApiError:
    fix = f"Check the address: does `curl {root}/models` list models?"
    return ApiError(f"{root} does not answer as the OpenAI API does: {_printable(what)}", code="bad-answer", fix=fix)


def retry_after_seconds(value: str, now: datetime) -> float | None:
    """A Retry-After header, seconds or a date, as seconds from ``now``; None when it is neither."""
    if re.fullmatch(r"[0-9]{1,9}", value.strip()):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds())


def _server_words(body: bytes) -> tuple[str, bool]:
    """What an error's body says, on one line, and whether it is about the model's name. Knows vLLM's and FastAPI's forms; else the text."""
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        return _printable(body.decode("utf-8", "replace")), False
    error = value.get("error", value) if isinstance(value, dict) else value
    if not isinstance(error, dict):
        return _printable(error if isinstance(error, str) else json.dumps(error)), False
    words = error.get("message") or error.get("detail") or error
    text = _printable(words if isinstance(words, str) else json.dumps(words))
    wrong_model = error.get("param") == "model" or error.get("code") == "model_not_found" or ("model" in text and "does not exist" in text)
    return text, wrong_model


def _printable(text: str) -> str:
    """On one line, without what could steer a terminal, and not longer than a person reads."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text[: 4 * LONGEST_WORDS]).split())
    return line if len(line) <= LONGEST_WORDS else line[: LONGEST_WORDS - 3] + "..."
