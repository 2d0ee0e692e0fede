"""LOG_FORMAT=json: the audit in the fields of every other log line, and one request id from the client's header to each of them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.gate import Gate
from qwen_fp8_ops.outside import log_line
from qwen_fp8_ops.plan.launch import make_plan
from qwen_fp8_ops.service.gate_rules import gate_rules
from tests.gate.test_audit import CHAT, entry

FIELDS = [
    "ts", "level", "event", "request_id", "who", "client", "method", "route", "status", "ms", "bytes_in", "bytes_out", "streamed", "finished",
    "prompt_tokens", "completion_tokens",
]  # fmt: skip


def documented() -> dict[str, set[str]]:
    """The docstring's table: each field, and what has it."""
    found: dict[str, set[str]] = {}
    for fields, where in re.findall(r"^\| (``.*?) \| (.*?) \|", log_line.__doc__ or "", re.MULTILINE):
        for field in re.findall(r"``(\w+)``", fields):
            found[field] = set(where.split(", "))
    return found


def test_a_line_of_the_audit_has_the_documented_fields_and_no_others() -> None:
    assert json.loads(entry().log_line()) == {
        "ts": "2023-11-14T22:13:20.000Z", "level": "info", "event": "request", "request_id": "i", "who": "alice", "client": "10.0.0.1", "method": "POST",
        "route": CHAT, "status": 200, "ms": 12.35, "bytes_in": 10, "bytes_out": 20, "streamed": False, "finished": True, "prompt_tokens": 3,
        "completion_tokens": 7,
    }  # fmt: skip
    assert list(json.loads(entry().log_line())) == FIELDS
    assert [field for field, where in documented().items() if where & {"every line", "audit"}] == [field for field in FIELDS if field != "message"]


def test_the_same_facts_in_both_forms() -> None:
    text, log = json.loads(entry().line()), json.loads(entry().log_line())
    assert text.pop("time") == log.pop("ts") and text.pop("id") == log.pop("request_id")
    assert {**text, "level": "info", "event": "request"} == log


@pytest.mark.parametrize(
    ("status", "finished", "level"),
    [(200, True, "info"), (204, True, "info"), (400, True, "warning"), (429, True, "warning"), (500, True, "error"), (503, False, "error"), (200, False, "warning"),
     (None, False, "warning")],
)  # fmt: skip
def test_the_level_says_whose_fault_it_was(status: int | None, finished: bool, level: str) -> None:
    assert json.loads(entry(status=status, finished=finished).log_line())["level"] == level


@given(st.text(st.characters(exclude_categories=())), st.none() | st.text())
def test_a_line_is_one_line_whatever_is_in_it(route: str, who: str | None) -> None:
    line = entry(route=route, who=who).log_line()
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert json.loads(line)["who"] == who


def test_the_form_follows_the_configuration_without_a_restart(home: Any, app: Any, ask: Any) -> None:
    gate = Gate(app)
    ask(gate, "POST", CHAT, body=b"{}")
    assert gate._audit.flush(10)
    home.write(log_format="json")
    ask(gate, path="/service")  # looks at the files at once
    ask(gate, "POST", CHAT, body=b"{}")
    assert gate._audit.flush(10)
    home.write(log_format="text")
    ask(gate, path="/service")
    first, *_, last = (line for line in home.audit(gate) if line["route"] == CHAT)
    assert "id" in first and list(last) == FIELDS


def test_log_format_reaches_the_gate(tmp_path: Any) -> None:
    for form in ("text", "json"):
        plan = make_plan(load(profiles=["demo"], overrides=[f"LOG_FORMAT={form}"]), RunPaths(tmp_path))
        assert gate_rules(plan, RunPaths(tmp_path), draining=False, ends_at=None).log_format == form


@pytest.mark.parametrize("given", ["trace/7:a=b", None])
def test_header_audit_and_engine_have_one_id(home: Any, app: Any, ask: Any, given: str | None) -> None:
    home.write(log_format="json")
    gate = Gate(app)
    reply = ask(gate, "POST", CHAT, body=b"{}", headers={"X-Request-Id": given} if given else {})
    id = reply.headers["x-request-id"]
    assert given in (None, id)
    assert [line["request_id"] for line in home.audit(gate)] == [id]
    # What vLLM reads: its serving classes take the header for the request's id (vllm/entrypoints/serve/engine/serving.py).
    assert app.header(b"x-request-id").decode() == id


def test_a_refused_request_has_its_id_in_answer_and_audit(home: Any, app: Any, ask: Any) -> None:
    home.with_keys(log_format="json")
    gate = Gate(app)
    reply = ask(gate, "POST", CHAT, body=b"{}", headers={"X-Request-Id": "mine"})
    assert (reply.status, reply.headers["x-request-id"]) == (401, "mine")
    assert [(line["request_id"], line["level"]) for line in home.audit(gate)] == [("mine", "warning")]


def test_a_defect_of_the_gate_is_logged_with_the_id(home: Any, app: Any, ask: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(app)
    monkeypatch.setattr(type(gate), "_refusal", lambda *args: 1 / 0)
    assert ask(gate, "POST", CHAT, body=b"{}", headers={"X-Request-Id": "find-me"}).status == 500
    assert "(request find-me)" in caplog.text
    assert [line["id"] for line in home.audit(gate)] == ["find-me"]
