from __future__ import annotations

import json
from datetime import UTC, datetime

import httpx
import pytest

from qwen_fp8_ops.client.failures import LONGEST_WORDS, ApiError, SilentError, UnavailableError, http_failure, retry_after_seconds, transport_failure
from qwen_fp8_ops.client.request import Limits
from qwen_fp8_ops.errors import ExitCode, NotRunningError, TimedOutError

ROOT = "http://127.0.0.1:8010/v1"


def vllm_error(status: int, message: str, param: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": "X", "param": param, "code": status}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "code", "exit_code"),
    [
        (400, vllm_error(400, "too many tokens"), "bad-request", ExitCode.FAILED),
        (401, vllm_error(401, "no key"), "unauthorized", ExitCode.FAILED),
        (403, b"", "unauthorized", ExitCode.FAILED),
        (404, vllm_error(404, "The model `x` does not exist.", "model"), "no-such-model", ExitCode.FAILED),
        (404, vllm_error(404, "There is no such route. Served here: GET /v1/models"), "no-such-route", ExitCode.FAILED),
        (413, vllm_error(413, "larger than 5 bytes"), "too-large", ExitCode.FAILED),
        (422, b'{"detail": [{"loc": ["body"], "msg": "wrong"}]}', "bad-request", ExitCode.FAILED),
        (429, vllm_error(429, "slow down"), "too-many-requests", ExitCode.FAILED),
        (500, b"Internal Server Error", "server-error", ExitCode.FAILED),
        (502, b"<html>bad gateway</html>", "server-error", ExitCode.FAILED),
        (503, vllm_error(503, "stopping"), "unavailable", ExitCode.NOT_RUNNING),
        (302, b"", "redirected", ExitCode.FAILED),
        (418, b"", "api-error", ExitCode.FAILED),
    ],
)
def test_each_status_has_its_code_and_a_way_on(status: int, body: bytes, code: str, exit_code: int) -> None:
    error = http_failure(status, {}, body, ROOT)
    assert (error.code, error.exit_code, error.status) == (code, exit_code, status)
    assert error.message
    assert error.fix or status == 418


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (vllm_error(400, "ask\nless\x1b[31m"), "ask less [31m"),
        (b'{"object": "error", "message": "old form", "code": 400}', "old form"),
        (b'{"error": "a text"}', "a text"),
        (b'{"detail": "unprocessable"}', "unprocessable"),
        (b"plain words", "plain words"),
        (b"[1, 2]", "[1, 2]"),
        (b"\xff", "\ufffd"),
        (b"", "The request was refused (HTTP 400)"),
    ],
)
def test_the_servers_own_words_are_told_on_one_line(body: bytes, words: str) -> None:
    assert http_failure(400, {}, body, ROOT).message == words


def test_a_long_body_is_cut() -> None:
    assert len(http_failure(400, {}, b"x" * 100_000, ROOT).message) == LONGEST_WORDS


def test_retry_after_is_told_in_words() -> None:
    error = http_failure(429, httpx.Headers({"Retry-After": "30"}), b"", ROOT)
    assert error.retry_after_seconds == 30
    assert error.fix == "Try again in 30 s."
    assert http_failure(503, {}, b"", ROOT).fix.startswith("Try again later.")


def test_retry_after_may_be_a_date() -> None:
    now = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
    assert retry_after_seconds("Thu, 01 Jan 2026 12:00:45 GMT", now) == 45
    assert retry_after_seconds("Thu, 01 Jan 2026 11:00:00 GMT", now) == 0
    assert retry_after_seconds("Thu, 01 Jan 2026 12:00:45 -0000", now) == 45


@pytest.mark.parametrize("value", ["", "soon", "-5", "1e3", "\u0663", "9" * 400])
def test_retry_after_that_says_nothing(value: str) -> None:
    assert retry_after_seconds(value, datetime.now(UTC)) is None


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (httpx.ConnectError("refused"), UnavailableError, "unreachable"),
        (httpx.ConnectTimeout(""), SilentError, "timed-out"),
        (httpx.ReadTimeout(""), SilentError, "timed-out"),
        (httpx.WriteTimeout(""), SilentError, "timed-out"),
        (httpx.PoolTimeout(""), SilentError, "timed-out"),
        (httpx.ReadError(""), ApiError, "broken-answer"),
        (httpx.RemoteProtocolError("peer closed"), ApiError, "broken-answer"),
        (httpx.DecodingError("not gzip"), ApiError, "broken-answer"),
    ],
)
def test_transport(error: httpx.RequestError, kind: type[ApiError], code: str) -> None:
    told = transport_failure(error, ROOT, Limits())
    assert (type(told), told.code, told.status) == (kind, code, None)
    assert ROOT in told.message
    assert told.fix


def test_the_tree() -> None:
    assert issubclass(UnavailableError, NotRunningError)
    assert issubclass(SilentError, TimedOutError)
    assert UnavailableError("x").exit_code == ExitCode.NOT_RUNNING
    assert SilentError("x").exit_code == ExitCode.TIMED_OUT
