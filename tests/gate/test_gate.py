"""The rules one by one, asked directly."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from qwen_fp8_ops.gate import GATE_VARIABLE, Gate
from qwen_fp8_ops.gate.fetch_rules import MediaRules
from qwen_fp8_ops.gate.media_budget import CURRENT, MediaBudget, SpentError
from qwen_fp8_ops.gate.visit import SKIPPED_BYTES

KEY = "alices-secret-key"
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
LOCAL = ("127.0.0.1", 1)


# Keys ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/models"), ("HEAD", "/v1/models"), ("POST", CHAT), ("POST", COMPLETIONS), ("GET", "/service")])
def test_a_key_is_asked_for_and_its_place_told(home: Any, app: Any, ask: Any, method: str, path: str) -> None:
    home.with_keys()
    gate = Gate(app)
    answers = [
        ask(gate, method, path, key=key, headers=headers)
        for key, headers in (("", {}), ("wrong-wrong", {}), ("", {"x-api-key": "wrong"}), ("", {"authorization": "Basic x"}))
    ]
    for reply in answers:
        assert reply.status == 401
        assert reply.headers["www-authenticate"] == "Bearer"
        assert "Authorization: Bearer KEY" in reply.error["message"]
        assert "X-API-Key" in reply.error["message"]
    assert len({reply.body for reply in answers}) == 1, "what was wrong is not told"
    assert app.scopes == []
    assert ask(gate, method, path, key=KEY).status == 200
    assert ask(gate, method, path, headers={"X-API-Key": KEY}).status == 200


def test_health_and_browsers_preflight_need_no_key(home: Any, app: Any, ask: Any) -> None:
    home.with_keys()
    gate = Gate(app)
    assert ask(gate, path="/health").status == ask(gate, "HEAD", "/health").status == ask(gate, "OPTIONS", CHAT).status == 200


@pytest.mark.parametrize("keys_required", [True, False])
def test_metrics_are_for_this_host_or_a_key(home: Any, app: Any, ask: Any, keys_required: bool) -> None:
    home.write(keys_files=(str(home.keys_file()),), keys_required=keys_required)
    gate = Gate(app)
    assert ask(gate, path="/metrics", client=LOCAL).status == 200
    assert ask(gate, path="/metrics").status == 401
    assert ask(gate, path="/metrics", client=LOCAL, headers={"X-Forwarded-For": "127.0.0.1"}).status == 401
    assert ask(gate, path="/metrics", key=KEY).status == 200


def test_without_keys_required_anybody_may_ask_and_a_known_key_still_names_them(home: Any, app: Any, ask: Any) -> None:
    home.write(keys_files=(str(home.keys_file()),))
    gate = Gate(app)
    assert [ask(gate, key=key).status for key in ("", "EMPTY", KEY)] == [200, 200, 200]
    assert [line["who"] for line in home.audit(gate)] == [None, None, "alice"]


def test_keys_are_rotated_without_a_restart(home: Any, app: Any, ask: Any) -> None:
    home.with_keys()
    gate = Gate(app)
    assert ask(gate, path="/service", key=KEY).status == 200
    home.new_keys_file("alice:a-brand-new-key\n")
    # /service looks at the files at once, so that who waits for a change sees it.
    assert ask(gate, path="/service", key=KEY).status == 401
    assert ask(gate, path="/service", key="a-brand-new-key").status == 200
    home.keys_file("carol:yet-another-key\n", name="more")
    assert ask(gate, path="/service", key="yet-another-key").status == 401
    home.write(keys_files=(str(home.folder / "keys"), str(home.folder / "more")))
    assert [ask(gate, path="/service", key=key).status for key in ("yet-another-key", "a-brand-new-key")] == [200, 200]
    home.write(keys_files=())
    assert [ask(gate, path="/service", key=key).status for key in ("yet-another-key", "a-brand-new-key")] == [401, 401]


def test_keys_of_a_file_that_went_bad_go_on_working_and_the_log_says_so_once(home: Any, app: Any, ask: Any, caplog: pytest.LogCaptureFixture) -> None:
    home.with_keys()
    gate = Gate(app)
    home.new_keys_file("alice:another-secret-key\n", mode=0o644)
    assert [ask(gate, path="/service", key=KEY).status for _ in range(3)] == [200, 200, 200]
    assert caplog.text.count("chmod 600") == 1
    assert KEY not in caplog.text and "another-secret-key" not in caplog.text


def test_a_missing_keys_file_shuts_the_gate_until_it_is_there(home: Any, app: Any, ask: Any) -> None:
    home.write(keys_files=(str(home.folder / "keys"),), keys_required=True)
    gate = Gate(app)
    assert ask(gate, path="/service", key=KEY).status == 401
    home.keys_file()
    assert ask(gate, path="/service", key=KEY).status == 200


# Request id, end of the allocation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["abc", "A.b_c-9", "x" * 128, "Root=1-67891233-abcdef", "job/7:3", "a;b,c(d)'e'%s{}~"])
def test_a_sane_request_id_is_kept(home: Any, app: Any, ask: Any, given: str) -> None:
    gate = Gate(app)
    app.headers.append((b"x-request-id", b"the app's own"))
    reply = ask(gate, headers={"X-Request-Id": given})
    assert reply.headers["x-request-id"] == given == app.header(b"x-request-id").decode() == home.audit(gate)[0]["id"]


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a\tb", "\x7f", "\xe4", 'a"b', "a\\n", "a\x00b", "a\nb", "a\x1b[2J"])
def test_any_other_is_replaced(home: Any, app: Any, ask: Any, given: str) -> None:
    gate = Gate(app)
    replies = [ask(gate, headers={"X-Request-Id": given}) for _ in range(2)]
    ids = [reply.headers["x-request-id"] for reply in replies]
    assert len(set(ids)) == 2
    assert all(id.isalnum() and len(id) == 24 for id in ids)
    assert app.header(b"x-request-id").decode() == ids[1]
    assert [name for name, _ in app.scopes[-1]["headers"]].count(b"x-request-id") == 1


def test_answers_say_when_the_allocation_ends(home: Any, app: Any, ask: Any) -> None:
    home.write(ends_at="2030-01-01T00:00:00Z")
    gate = Gate(app)
    assert all(ask(gate, path=path).headers["x-service-ends-at"] == "2030-01-01T00:00:00Z" for path in ("/v1/models", "/nowhere", "/service"))
    home.write(ends_at=None)
    assert "x-service-ends-at" not in ask(gate, path="/service").headers


# Bodies ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_a_body_announced_too_large_is_refused_at_once(home: Any, app: Any, ask: Any, path: str) -> None:
    gate = Gate(app)
    reply = ask(gate, "POST", path, headers={"content-length": "100001"}, body=[b"x"])
    assert reply.status == 413
    assert "100000 bytes" in reply.error["message"]
    assert reply.headers["connection"] == "close"
    assert app.scopes == []
    assert ask(gate, "POST", path, body=b"x" * 100_000).status == 200


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("pieces", [[b"x" * 100_001], [b"x" * 60_000] * 2, [b" " * 60_000] * 3, [b'{"a":"', b"y" * 99_994, b'"}']])
def test_a_body_of_unknown_size_is_cut_where_it_is_too_large(home: Any, app: Any, ask: Any, path: str, pieces: list[bytes]) -> None:
    home.write(default_max_tokens=5)
    gate = Gate(app)
    reply = ask(gate, "POST", path, headers={"transfer-encoding": "chunked"}, body=pieces)
    assert reply.status == 413
    assert reply.error["type"] == "RequestTooLargeError"
    assert [message["type"] for message in reply.messages].count("http.response.start") == 1
    assert app.ends in ([], ["http.disconnect"]), "the app hears that nothing more comes"
    line = home.audit(gate)[0]
    assert (line["status"], line["finished"]) == (413, True)
    assert gate.in_flight == 0


def test_an_answer_that_has_begun_ends_where_the_body_is_too_large(home: Any, ask: Any) -> None:
    async def eager(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        assert (await receive())["type"] == "http.disconnect"
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.body", "body": b"never"})

    gate = Gate(eager)
    reply = ask(gate, "POST", COMPLETIONS, headers={"transfer-encoding": "chunked"}, body=[b"x" * 100_001])
    assert (reply.status, reply.body) == (200, b"")
    assert home.audit(gate)[0]["finished"] is False


def test_a_small_unread_body_leaves_the_connection_usable(home: Any, app: Any, ask: Any) -> None:
    home.with_keys()
    gate = Gate(app)
    assert "connection" not in ask(gate, "POST", CHAT, body=b"x" * SKIPPED_BYTES).headers
    assert ask(gate, "POST", CHAT, body=b"x" * (SKIPPED_BYTES + 1)).headers["connection"] == "close"
    assert ask(gate, "POST", CHAT, body=[b"x"], headers={"transfer-encoding": "chunked"}).headers["connection"] == "close"


# Default for max_tokens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pieces",
    [
        [b'{"messages":[]}'],
        [b"{", b'"messages":[]}'],
        [b" ", b"\n", b"{", b" ", b'"messages":[]}'],
        [b"", b'{"messages"', b":[]}"],
        [b"\xef", b"\xbb\xbf", b'{"messages":[]}'],
    ],
)
@pytest.mark.parametrize("known_length", [True, False])
def test_chat_requests_get_the_default(home: Any, app: Any, ask: Any, pieces: list[bytes], known_length: bool) -> None:
    home.write(default_max_tokens=123)
    gate = Gate(app)
    length = sum(map(len, pieces))
    headers = {"content-length": str(length)} if known_length else {"transfer-encoding": "chunked"}
    assert ask(gate, "POST", CHAT, headers=headers, body=list(pieces)).status == 200
    assert json.loads(app.bodies[0]) == {"max_tokens": 123, "messages": []}
    assert app.header(b"content-length") == (str(len(app.bodies[0])).encode() if known_length else None)
    assert home.audit(gate)[0]["bytes_in"] == length


@pytest.mark.parametrize("body", [b'{"max_tokens":5}', b'{"messages":[],"max_tokens": 5 }'])
def test_a_requests_own_limit_wins(home: Any, app: Any, ask: Any, body: bytes) -> None:
    home.write(default_max_tokens=123)
    ask(Gate(app), "POST", CHAT, body=body)
    assert json.loads(app.bodies[0]) == json.loads(body)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"nonsense", b"{", b"\x1f\x8b\x08"])
def test_what_is_no_object_passes_unchanged(home: Any, app: Any, ask: Any, body: bytes) -> None:
    home.write(default_max_tokens=123)
    assert ask(Gate(app), "POST", CHAT, body=body).status == 200
    assert app.bodies == [body]
    assert app.header(b"content-length") == str(len(body)).encode()


def test_other_routes_encoded_bodies_and_no_default_pass_unchanged(home: Any, app: Any, ask: Any) -> None:
    home.write(default_max_tokens=123)
    gate = Gate(app)
    ask(gate, "POST", COMPLETIONS, body=b"{}")
    ask(gate, "POST", CHAT, body=b"{}", headers={"content-encoding": "identity"})
    home.write(default_max_tokens=0)
    ask(gate, path="/service")
    ask(gate, "POST", CHAT, body=b"{}")
    assert app.bodies == [b"{}"] * 3


# Draining, rate ------------------------------------------------------------------------------------------------------------------


def test_a_drain_refuses_new_work_and_answers_the_rest(home: Any, app: Any, ask: Any) -> None:
    gate = Gate(app)
    assert ask(gate, "POST", CHAT, body=b"{}").status == 200
    home.write(draining=True, retry_after_seconds=17)
    assert ask(gate, path="/service").json()["gate"]["draining"] is True
    for path in (CHAT, COMPLETIONS):
        reply = ask(gate, "POST", path, body=b"{}")
        assert reply.status == 503
        assert reply.headers["retry-after"] == "17"
        assert reply.headers["connection"] == "close"
        assert reply.error["type"] == "ServiceUnavailableError"
    assert [ask(gate, path=path, client=LOCAL).status for path in ("/v1/models", "/health", "/metrics", "/service")] == [200] * 4
    home.write(draining=False)
    assert ask(gate, path="/service").json()["gate"]["draining"] is False
    assert ask(gate, "POST", CHAT, body=b"{}").status == 200


def test_files_are_looked_at_as_time_passes_but_not_on_every_request(home: Any, app: Any, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("qwen_fp8_ops.gate.app.time.monotonic", lambda: clock[0])
    gate = Gate(app)
    assert ask(gate, "POST", CHAT, body=b"{}").status == 200
    home.write(draining=True)
    assert ask(gate, "POST", CHAT, body=b"{}").status == 200
    clock[0] += 0.11
    assert ask(gate, "POST", CHAT, body=b"{}").status == 503


def test_too_many_requests_are_told_when_to_come_back(home: Any, app: Any, ask: Any) -> None:
    home.with_keys(rate_limit_per_minute=2)
    gate = Gate(app)
    assert [ask(gate, "POST", path, body=b"{}", key=KEY).status for path in (CHAT, COMPLETIONS, CHAT)] == [200, 200, 429]
    reply = ask(gate, "POST", CHAT, body=b"{}", key=KEY)
    assert 1 <= int(reply.headers["retry-after"]) <= 30
    assert reply.error["type"] == "RateLimitError"
    assert ask(gate, "POST", CHAT, body=b"{}", key="bobs-secret-key:with:colons").status == 200, "each key has its own"
    assert ask(gate, path="/v1/models", key=KEY).status == 200, "only work is limited"
    home.write(rate_limit_per_minute=0)
    ask(gate, path="/service", key=KEY)
    assert ask(gate, "POST", CHAT, body=b"{}", key=KEY).status == 200


def test_without_keys_each_address_has_its_own_limit(home: Any, app: Any, ask: Any) -> None:
    home.write(rate_limit_per_minute=1)
    gate = Gate(app)
    clients: list[Any] = [("10.0.0.1", 1), ("10.0.0.1", 2), ("10.0.0.2", 1), None, None]
    assert [ask(gate, "POST", CHAT, body=b"{}", client=client).status for client in clients] == [200, 429, 200, 200, 429]


# Service -------------------------------------------------------------------------------------------------------------------------


def test_service_tells_the_public_part_of_the_state(home: Any, app: Any, ask: Any) -> None:
    home.write(ends_at="2030-01-01T00:00:00Z")
    gate = Gate(app)
    assert ask(gate, path="/service").json()["service"] is None
    state = {"schema": 1, "state": "ready", "since": "s", "model": "m", "url": "u", "load": None, "lock": "private", "processes": [{"pid": 1}]}
    (home.folder / "state.json").write_text(json.dumps(state))
    reply = ask(gate, path="/service")
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-store"
    told = reply.json()
    assert told["service"] == {"state": "ready", "since": "s", "model": "m", "url": "u", "load": None}
    assert (told["schema"], told["ends_at"]) == (1, "2030-01-01T00:00:00Z")
    assert set(told["gate"]) == {"draining", "in_flight", "requests_total", "audit_dropped", "pid"}
    assert told["gate"]["requests_total"] == 2
    for damaged in ("[1]", "{", ""):
        (home.folder / "state.json").write_text(damaged)
        assert ask(gate, path="/service").json()["service"] is None


# What goes wrong -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [False, True])
def test_an_exception_in_the_app_is_on_record_and_goes_on_to_the_server(home: Any, ask: Any, begun: bool) -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError("a secret detail")

    gate = Gate(failing)
    with pytest.raises(ZeroDivisionError):
        ask(gate, "POST", CHAT, body=b"{}")
    assert gate.in_flight == 0
    line = home.audit(gate)[0]
    assert (line["status"], line["finished"]) == (200 if begun else 500, False)


def test_a_fault_of_the_gates_own_shuts_it_and_only_the_log_says_why(
    home: Any, app: Any, ask: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(app)
    monkeypatch.setattr(gate._rules.keys, "owner", lambda *_: 1 / 0)
    reply = ask(gate, "POST", CHAT, body=b"{}")
    assert reply.status == 500
    assert "division" not in reply.error["message"]
    assert "ZeroDivisionError" in caplog.text
    assert app.scopes == []
    assert gate.in_flight == 0
    assert home.audit(gate)[0]["status"] == 500


def test_a_client_that_leaves_is_on_record(home: Any, app: Any, ask: Any) -> None:
    gate = Gate(app)
    ask(gate, "POST", COMPLETIONS, body=[b"{"], leaves=True, headers={"content-length": "100"})
    home.write(default_max_tokens=5)
    ask(gate, path="/service")
    reached = len(app.bodies)
    assert ask(gate, "POST", CHAT, body=[b" "], leaves=True, headers={"content-length": "100"}).status == 0
    assert len(app.bodies) == reached, "the app is not troubled with a body that never came"
    left = [line for line in home.audit(gate) if line["method"] == "POST"]
    assert [(line["finished"], line["status"]) for line in left] == [(False, 200), (False, None)]
    assert gate.in_flight == 0


def test_a_client_that_leaves_while_it_is_served_is_on_record(home: Any, ask: Any) -> None:
    async def patient(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert gate.in_flight == 1
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"null"})

    gate = Gate(patient)
    ask(gate, "POST", COMPLETIONS, body=b"{}")
    assert home.audit(gate)[0]["finished"] is False
    assert gate.in_flight == 0


def test_websockets_are_refused(home: Any, app: Any) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Gate(app)({"type": "websocket", "path": "/v1/realtime", "headers": []}, receive, send))
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert app.scopes == []


def test_a_bad_configuration_while_serving_changes_nothing_and_is_logged_once(home: Any, app: Any, ask: Any, caplog: pytest.LogCaptureFixture) -> None:
    home.with_keys()
    gate = Gate(app)
    for text in ("{", '{"schema": 2}', json.dumps({**home.config.as_json(), "keys_required": "no"})):
        caplog.clear()
        home.write_text(text)
        assert [ask(gate, path="/service", key=key).status for key in ("", KEY, KEY)] == [401, 200, 200]
        assert caplog.text.count("keeps the rules it had") == 1
    home.path.unlink()
    assert [ask(gate, path="/service", key=key).status for key in ("", KEY)] == [401, 200]
    home.with_keys(draining=True)
    assert ask(gate, path="/service", key=KEY).json()["gate"]["draining"] is True


@pytest.mark.parametrize("how", ["no variable", "empty variable", "no file", "bad file"])
def test_without_a_configuration_nothing_is_served_and_the_start_fails(home: Any, app: Any, ask: Any, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "no variable":
        monkeypatch.delenv(GATE_VARIABLE)
    elif how == "empty variable":
        monkeypatch.setenv(GATE_VARIABLE, "")
    elif how == "no file":
        home.path.unlink()
    else:
        home.write_text("{")
    gate = Gate(app)
    assert [ask(gate, path=path).status for path in ("/health", "/v1/models", "/nowhere")] == [503] * 3
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(gate({"type": "lifespan"}, receive, send))
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    assert ("gate.json" if "file" in how else GATE_VARIABLE) in sent[0]["message"]
    assert app.scopes == []


def test_nothing_secret_reaches_the_log(home: Any, app: Any, ask: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    home.with_keys(default_max_tokens=5)
    gate = Gate(app)
    ask(gate, "POST", CHAT, body=b'{"messages":"a private question"}', key=KEY)
    ask(gate, "POST", CHAT, body=b'{"messages":"a private question"}', key="a-guessed-key")
    text = caplog.text + json.dumps(home.audit(gate))
    assert KEY not in text
    assert "a-guessed-key" not in text
    assert "private question" not in text
    assert "alice" in text


# Media -----------------------------------------------------------------------------------------------------------------------


def test_each_request_has_a_media_budget_of_its_own_by_the_rules_of_now(home: Any, app: Any, ask: Any) -> None:
    seen: list[MediaBudget | None] = []

    async def looking(scope: Any, receive: Any, send: Any) -> None:
        seen.append(CURRENT.get())
        await app(scope, receive, send)

    home.write(media=MediaRules(most_bytes=10))
    gate = Gate(looking)
    assert [ask(gate, "POST", CHAT, body=b"{}").status for _ in range(2)] == [200, 200]
    first, second = seen
    assert first and second and first is not second
    first.spend(10)
    with pytest.raises(SpentError, match="larger than 10 bytes"):
        first.spend(1)
    second.spend(10)
    assert CURRENT.get() is None, "nothing of it stays behind"
