from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.gate import Gate, audit
from qwen_fp8_ops.gate.audit import AuditLog, Entry, usage

CHAT = "/v1/chat/completions"


def entry(**changes: Any) -> Entry:
    values: dict[str, Any] = {
        "time": 1_700_000_000.0, "id": "i", "who": "alice", "client": "10.0.0.1", "method": "POST", "route": CHAT, "status": 200, "ms": 12.3456, "bytes_in": 10,
        "bytes_out": 20, "streamed": False, "finished": True, "tail": b'"usage":{"prompt_tokens":3,"total_tokens":10,"completion_tokens":7}}',
    }  # fmt: skip
    return Entry(**{**values, **changes})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def test_a_line_says_who_asked_what_and_what_came_of_it() -> None:
    assert json.loads(entry().line()) == {
        "time": "2023-11-14T22:13:20.000Z", "id": "i", "who": "alice", "client": "10.0.0.1", "method": "POST", "route": CHAT, "status": 200, "ms": 12.35, "bytes_in": 10,
        "bytes_out": 20, "streamed": False, "finished": True, "prompt_tokens": 3, "completion_tokens": 7,
    }  # fmt: skip


@given(st.text(), st.none() | st.text())
def test_a_line_is_one_line_whatever_is_in_it(route: str, who: str | None) -> None:
    line = entry(route=route, who=who).line()
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert json.loads(line)["route"] == route


@pytest.mark.parametrize(
    ("tail", "tokens"),
    [
        (b'"usage":{"prompt_tokens":3,"total_tokens":10,"completion_tokens":7,"prompt_tokens_details":null}}', (3, 7)),
        (b'"usage" : { "completion_tokens": 7 ,\n "prompt_tokens" : 3 }', (3, 7)),
        (b'data: {"usage":{"prompt_tokens":3,"completion_tokens":7}}\n\ndata: [DONE]\n\n', (3, 7)),
        (b'"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\ndata: {"usage":{"prompt_tokens":3,"completion_tokens":7}}', (3, 7)),
        (b'"usage":{"prompt_tokens":3,"completion_tokens":7,"completion_tokens_details":{"reasoning_tokens":2}}', (3, 7)),
        (b'"usage":{"prompt_tokens":3}', (3, None)),
        (b'"usage":null}', (None, None)),
        (b'{"content":"\\"usage\\":{\\"prompt_tokens\\":9,\\"completion_tokens\\":9}"}', (None, None)),
        (b'"prompt_tokens":9,"completion_tokens":9', (None, None)),
        (b'"usage":{"prompt_tokens":-1,"completion_tokens":"x"}', (None, None)),
        (b"", (None, None)),
        (b"\xff\x00" * 100, (None, None)),
    ],
)
def test_tokens_are_read_from_the_end_of_an_answer(tail: bytes, tokens: Any) -> None:
    assert usage(tail) == tokens


@given(st.text())
def test_an_answers_text_cannot_forge_them(text: str) -> None:
    forged = json.dumps({"content": '"usage":{"prompt_tokens":666,"completion_tokens":666}' + text + '"usage":{"prompt_tokens":666}'}).encode()
    assert usage(forged) == (None, None)


@pytest.mark.parametrize("cut", [1, 10, 100, 1500])
def test_tokens_are_found_however_the_answer_was_cut(home: Any, app: Any, ask: Any, cut: int) -> None:
    whole = b'{"choices":["' + b"x" * 5000 + b'"],"usage":{"prompt_tokens":31,"total_tokens":48,"completion_tokens":17}}'
    app.answer = [whole[:-cut], whole[-cut:], b""]
    gate = Gate(app)
    assert ask(gate, "POST", CHAT, body=b"{}").body == whole
    assert [(line["prompt_tokens"], line["completion_tokens"]) for line in home.audit(gate)] == [(31, 17)]


def test_tokens_of_a_stream(home: Any, app: Any, ask: Any) -> None:
    app.headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    app.answer = [b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'] * 50 + [
        b'data: {"usage":{"prompt_tokens":5,"completion_tokens":50}}\n\n',
        b"data: [DONE]\n\n",
        b"",
    ]
    gate = Gate(app)
    ask(gate, "POST", CHAT, body=b"{}")
    line = home.audit(gate)[0]
    assert (line["streamed"], line["prompt_tokens"], line["completion_tokens"], line["bytes_out"]) == (True, 5, 50, sum(map(len, app.answer)))


def test_every_request_on_our_routes_is_on_record_refused_ones_too(home: Any, app: Any, ask: Any) -> None:
    home.with_keys(rate_limit_per_minute=1)
    gate = Gate(app)
    key = "alices-secret-key"
    ask(gate, path="/nowhere?key=secret")
    ask(gate, "PUT", "/v1/models")
    ask(gate, "POST", CHAT)
    ask(gate, "POST", CHAT, key=key, headers={"content-length": "999999"}, body=[b""])
    ask(gate, "POST", CHAT, key=key, body=b"{}")
    ask(gate, "POST", CHAT, key=key, body=b"{}")
    ask(gate, path="/health")
    ask(gate, path="/metrics", client=("127.0.0.1", 1))
    ask(gate, path="/service", key=key)
    found = home.audit(gate)
    assert [(line["status"], line["who"]) for line in found] == [
        (404, None),
        (405, None),
        (401, None),
        (413, "alice"),
        (200, "alice"),
        (429, "alice"),
        (200, "alice"),
    ]
    assert {line["client"] for line in found} == {"10.1.2.3"}
    assert found[4]["bytes_in"] == 2
    assert found[4]["bytes_out"] == len(app.answer[0])
    assert found[4]["finished"]


def test_a_long_path_is_cut(home: Any, app: Any, ask: Any) -> None:
    gate = Gate(app)
    ask(gate, path="/" + "x" * 10_000)
    assert len(home.audit(gate)[0]["route"]) == 200


def test_a_full_disk_costs_lines_and_nothing_else(home: Any, app: Any, ask: Any, caplog: pytest.LogCaptureFixture) -> None:
    home.write(audit="/dev/full")
    gate = Gate(app)
    for _ in range(3):
        assert ask(gate, "POST", CHAT, body=b"{}").status == 200
        assert gate._audit.flush(10)
    assert caplog.text.count("Audit lines are being lost: /dev/full: No space left on device") == 1
    assert ask(gate, path="/service").json()["gate"]["audit_dropped"] == 3
    # /service asked before, so its own line may go either way; from here on the file is the new one.
    assert gate._audit.flush(10)
    dropped = gate._audit.dropped
    home.write(audit=str(home.folder / "audit.jsonl"))
    ask(gate, path="/service")
    ask(gate, "POST", CHAT, body=b"{}")
    assert [line["route"] for line in home.audit(gate)] == ["/service", CHAT]
    assert gate._audit.dropped == dropped
    assert "written again" in caplog.text


def test_a_folder_that_is_gone_is_made_again(tmp_path: Path) -> None:
    log = AuditLog(str(tmp_path / "logs" / "audit.jsonl"))
    for _ in range(2):
        log.record(entry())
        assert log.flush(10)
        assert len(lines(tmp_path / "logs" / "audit.jsonl")) == 1
        (tmp_path / "logs").rename(tmp_path / f"tidied-up-{len(os.listdir(tmp_path))}")
    assert log.dropped == 0


def test_a_folder_that_cannot_be_made_is_survived(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file is in its way")
    log = AuditLog(str(tmp_path / "logs" / "audit.jsonl"))
    log.record(entry())
    assert log.flush(10)
    assert log.dropped == 1
    (tmp_path / "logs").unlink()
    log.record(entry())
    assert log.flush(10)
    assert log.dropped == 1
    assert len(lines(tmp_path / "logs" / "audit.jsonl")) == 1


def test_a_renamed_file_is_left_and_a_new_one_begun(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(str(path))
    for number in range(3):
        log.record(entry(id=str(number)))
        assert log.flush(10)
        path.rename(tmp_path / f"audit.jsonl.{number}")
    assert [lines(tmp_path / f"audit.jsonl.{number}")[0]["id"] for number in range(3)] == ["0", "1", "2"]


def test_a_line_that_was_torn_does_not_spoil_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AuditLog(str(tmp_path / "audit.jsonl"))
    room = [2 * len(entry().line()) + 30]
    write = os.write

    def small_disk(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr("qwen_fp8_ops.gate.audit.os.write", small_disk)
    for _ in range(4):
        log.record(entry())
    assert log.flush(10)
    log.record(entry())
    assert log.flush(10)
    assert log.dropped == 3
    room[0] = 10_000
    log.record(entry(id="after"))
    assert log.flush(10)
    assert log.dropped == 3
    text = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in (text[0], text[1], text[3])] == ["i", "i", "after"]
    assert len(text) == 4
    assert len(text[2]) == 30


def test_a_disk_that_hangs_fills_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AuditLog(str(tmp_path / "audit.jsonl"))
    monkeypatch.setattr(audit, "LONGEST_QUEUE", 10)
    hangs, writing = threading.Event(), threading.Event()
    reopen = log._reopen

    def slow() -> None:
        writing.set()
        assert hangs.wait(30)
        reopen()

    monkeypatch.setattr(log, "_reopen", slow)
    log.record(entry())
    assert writing.wait(30)
    for _ in range(15):
        log.record(entry())
    assert log.dropped == 5
    hangs.set()
    assert log.flush(10)
    assert len(lines(tmp_path / "audit.jsonl")) == 11


def test_several_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    logs = [AuditLog(str(path)) for _ in range(4)]
    for number in range(100):
        for log in logs:
            log.record(entry(id=str(number), route="/" + "x" * 150))
    assert all(log.flush(10) for log in logs)
    assert len(lines(path)) == 400
