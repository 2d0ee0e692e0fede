"""Answers that say no, in the form of an OpenAI error, each with what to do instead."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from qwen_fp8_ops.gate.asgi import Headers
from qwen_fp8_ops.gate.routes import ROUTES, Route


@dataclass(frozen=True)
class Refusal:
    """``kind`` goes where the engine's own errors name theirs (``error.type``)."""

    status: int
    kind: str
    message: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    close: bool = False

    def body(self) -> bytes:
        return json.dumps({"error": {"message": self.message, "type": self.kind, "param": None, "code": self.status}}).encode()

    def all_headers(self, *, close: bool) -> Headers:
        return [*self.headers, (b"connection", b"close")] if close or self.close else list(self.headers)


SERVED = ", ".join(f"{'|'.join(route.methods)} {path}" for path, route in ROUTES.items())
NOT_FOUND = Refusal(404, "NotFoundError", f"There is no such route. Served here: {SERVED}.")
NO_KEY = Refusal(
    401,
    "AuthenticationError",
    "A valid key is needed: send it as `Authorization: Bearer KEY` (`api_key` of an OpenAI client) or as `X-API-Key: KEY`.",
    ((b"www-authenticate", b"Bearer"),),
)
TOO_SLOW = Refusal(408, "RequestTimeoutError", "The request's body did not arrive in time; send it again.", close=True)
OUR_FAULT = Refusal(500, "InternalServerError", "The gate failed on this request; the server's log says why.", close=True)
NOT_CONFIGURED = Refusal(503, "ServiceUnavailableError", "The gate has no configuration, so nothing is served; the server's log says why.", close=True)


def wrong_method(route: Route) -> Refusal:
    allow = route.allow
    return Refusal(405, "MethodNotAllowedError", f"{route.path} takes {allow.decode()}.", ((b"allow", allow),))


def too_large(limit_bytes: int) -> Refusal:
    return Refusal(413, "RequestTooLargeError", f"The request's body is larger than {limit_bytes} bytes (MAX_BODY_MB). Send large media as URLs.")


def too_many(wait_seconds: float, per_minute: int) -> Refusal:
    wait = max(1, math.ceil(wait_seconds))
    return Refusal(429, "RateLimitError", f"More than {per_minute} requests a minute (RATE_LIMIT). Try again in {wait} s.", ((b"retry-after", b"%d" % wait),))


def poison(id: str, first: str, second: str, until: str) -> Refusal:
    return Refusal(
        422,
        "PoisonRequestError",
        f"This very request ran both times when the engine crashed, at {first} and at {second}, so it is refused until {until} (poison record {id}). "
        f"Change it; or the operator lifts it by taking the record {id} out of `refused` in run/poison.json.",
    )


def draining(retry_after_seconds: int) -> Refusal:
    """The connection is closed too, so that a balancer or a client's pool opens its next one elsewhere."""
    return Refusal(
        503, "ServiceUnavailableError", "The service is stopping and takes no new requests.", ((b"retry-after", b"%d" % retry_after_seconds),), close=True
    )
