"""The gate itself: admit or refuse, pass on, account for it."""

from __future__ import annotations

import json
import logging
import os
import random
import re
import time
from pathlib import Path
from typing import Any

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.gate import refusal
from qwen_fp8_ops.gate.asgi import App, Headers, Receive, Scope, Send, send_answer
from qwen_fp8_ops.gate.audit import AuditLog
from qwen_fp8_ops.gate.config import GATE_VARIABLE
from qwen_fp8_ops.gate.in_flight import InFlight
from qwen_fp8_ops.gate.keys import SUPERVISOR
from qwen_fp8_ops.gate.live import LiveRules
from qwen_fp8_ops.gate.media_budget import CURRENT, MediaBudget
from qwen_fp8_ops.gate.passage import Passage
from qwen_fp8_ops.gate.poison import PoisonList
from qwen_fp8_ops.gate.rate import RateLimiter
from qwen_fp8_ops.gate.refusal import Refusal
from qwen_fp8_ops.gate.routes import CHAT, HEALTH, METRICS, PROBE_HEADER, ROUTES, SERVICE, is_local, route_path
from qwen_fp8_ops.gate.visit import Visit, content_length
from qwen_fp8_ops.outside.files import read_json

SANE_ID = re.compile(rb"[!#-\[\]-~]{1,128}")
"""A client's own request id: visible ASCII, without the quote and the backslash that JSON writes otherwise: one `grep` then finds it in
the audit and in the engine's log."""
PROBE = PROBE_HEADER.lower().encode()
PUBLIC_STATE = ("state", "since", "model", "url", "load")
LONGEST_ROUTE = 200
FLUSH_SECONDS = 1.0

logger = logging.getLogger("qwen_fp8_ops.gate")


class Gate:
    """ASGI middleware around the engine's app.

    Without a readable configuration it fails the server's start through the lifespan protocol, and refuses every request should
    the server go on. It does not raise for that in its constructor: Starlette builds middleware while it handles the lifespan,
    and uvicorn takes an exception there for an app that knows no lifespan, and serves.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._problem = ""
        self.in_flight = 0
        self.requests_total = 0
        self._rate = RateLimiter()
        self._ends_at: Headers = []
        self._member = b""
        try:
            self._rules = LiveRules(configured_path())
        except OpsError as error:
            self._problem = f"{error.message}. {error.fix}"
            return
        self._audit = AuditLog(self._rules.config.audit)
        self._poison = PoisonList()
        self._running = InFlight()
        self._adopt()

    def _adopt(self) -> None:
        """Take over what follows from the configuration."""
        config = self._rules.config
        self._audit.path = config.audit
        self._poison.path, self._running.folder = config.poison, config.in_flight
        self._audit.as_log = config.log_format == "json"
        self._ends_at = [(b"x-service-ends-at", config.ends_at.encode())] if config.ends_at else []
        self._member = b'"max_tokens":%d' % config.default_max_tokens if config.default_max_tokens else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if self._problem:
                answer = refusal.NOT_CONFIGURED
                await send_answer(send, answer.status, answer.all_headers(close=True), answer.body())
            else:
                await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "There are no websockets here."})

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._problem:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": self._problem})
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._audit.flush(FLUSH_SECONDS)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        now = time.monotonic()
        self.requests_total += 1
        path = route_path(scope)
        route = ROUTES.get(path)
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        id = given if SANE_ID.fullmatch(given) else new_id()
        visit = Visit(scope, receive, send, id=id, now=now)
        no = self._decide(visit, path, headers, now)
        counted = no is None and scope["method"] == "POST" and not visit.is_probe
        self.in_flight += counted
        if counted and self._running.folder:
            visit.passage = Passage(self._poison, self._running, id.decode("ascii"))
        try:
            if no is not None:
                await visit.refuse(no)
            elif path == SERVICE and scope["method"] == "GET":
                await send_answer(visit.send, 200, [(b"cache-control", b"no-store")], self._service())
            else:
                await self._pass_on(visit, path, headers)
        finally:
            self.in_flight -= counted
            if visit.passage:
                visit.passage.leave(well=visit.ended_well)
            if (route is None or route.audited) and not visit.is_probe:
                self._audit.record(visit.entry(path[:LONGEST_ROUTE], time.monotonic()))

    def _decide(self, visit: Visit, path: str, headers: dict[bytes, bytes], now: float) -> Refusal | None:
        """``_refusal`` by the rules in force now. Should that fail the gate stays shut, and only the log tells why."""
        try:
            if self._rules.refresh(now, at_once=path == SERVICE):
                self._adopt()
            visit.limit_bytes = self._rules.config.max_body_bytes
            visit.stamps += self._ends_at
            return self._refusal(visit, path, headers, now)
        except Exception:
            logger.exception("The gate failed on %s (request %s)", path[:LONGEST_ROUTE], visit.id.decode("ascii"))
            return refusal.OUR_FAULT

    def _refusal(self, visit: Visit, path: str, headers: dict[bytes, bytes], now: float) -> Refusal | None:
        """Why this request may not pass; None when it may. The cheap questions come first, and nothing is told before the key."""
        method = visit.scope["method"]
        config = self._rules.config
        route = ROUTES.get(path)
        if route is None:
            return refusal.NOT_FOUND
        if method == "OPTIONS":
            return None
        if method not in route.methods:
            return refusal.wrong_method(route)
        visit.who = self._rules.keys.owner(headers.get(b"authorization"), headers.get(b"x-api-key"))
        if visit.who is None and path != HEALTH and (not is_local(visit.scope) if path == METRICS else config.keys_required):
            return refusal.NO_KEY
        visit.is_probe = visit.who == SUPERVISOR and PROBE in headers
        if content_length(headers) > config.max_body_bytes:
            return refusal.too_large(config.max_body_bytes)
        if method != "POST":
            return None
        if config.draining:
            return refusal.draining(config.retry_after_seconds)
        if config.rate_limit_per_minute and not visit.is_probe:
            client = visit.scope.get("client")
            caller = f"key {visit.who}" if visit.who else f"address {client[0] if client else ''}"
            wait = self._rate.take(caller, config.rate_limit_per_minute, now)
            if wait:
                return refusal.too_many(wait, config.rate_limit_per_minute)
        return None

    async def _pass_on(self, visit: Visit, path: str, headers: dict[bytes, bytes]) -> None:
        ours = {b"x-request-id": visit.id}
        if self._member and path == CHAT and visit.scope["method"] == "POST" and b"content-encoding" not in headers:
            added = await visit.put_default(self._member)
            if visit.cut or visit.gone:
                return
            if added and b"content-length" in headers:
                ours[b"content-length"] = b"%d" % (content_length(headers) + added)
        scope = dict(visit.scope)
        scope["headers"] = [header for header in visit.scope["headers"] if header[0] not in ours] + list(ours.items())
        CURRENT.set(MediaBudget(self._rules.config.media.most_bytes))  # the server runs each request in a context of its own
        returned = False
        try:
            await self._app(scope, visit.receive, visit.send)
            returned = True
        finally:
            if not returned:
                # It failed, or was cut off by the server's end. The server's own error handling, outside of us, answers; this is the record.
                visit.status = visit.status or 500

    def _service(self) -> bytes:
        config = self._rules.config
        return json.dumps(
            {
                "schema": 1,
                "gate": {
                    "draining": config.draining,
                    "in_flight": self.in_flight,
                    "requests_total": self.requests_total,
                    "audit_dropped": self._audit.dropped,
                    "pid": os.getpid(),
                },
                "ends_at": config.ends_at,
                "service": public_state(Path(config.state)),
            }
        ).encode()


def new_id() -> bytes:
    """A name for a request. It is no secret, so the kernel need not be asked for it, which can take longer than all the rest."""
    return b"%024x" % random.getrandbits(96)


def public_state(path: Path) -> dict[str, Any] | None:
    """What anybody with a key may know of the supervisor's state; None when it cannot be read."""
    try:
        state = read_json(path)
    except OpsError:
        return None
    return {key: state.get(key) for key in PUBLIC_STATE} if isinstance(state, dict) else None


def configured_path() -> Path:
    """
    Raises:
        OpsError: the environment does not say where the configuration is.
    """
    path = os.environ.get(GATE_VARIABLE)
    if not path:
        raise OpsError(
            f"The environment variable {GATE_VARIABLE} does not name the gate's configuration", code="gate-config", fix="Start the service with: qwen-fp8 start"
        )
    return Path(path)
