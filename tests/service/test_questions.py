"""What an answer to one of the supervisor's questions means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.outside import http
from qwen_fp8_ops.outside.http import Answer
from qwen_fp8_ops.plan.launch import make_plan
from qwen_fp8_ops.service.questions import Reply, ask_token

PICTURE = "http://127.0.0.1:8080/_picture.png"


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Answer]]:
    given: list[Answer] = []
    monkeypatch.setattr(http, "post", lambda *words, **more: given.pop(0))
    yield given
    assert given == []


def ask(tmp_path: Path, *, picture: str = "") -> Reply:
    engine = replace(make_plan(load(profiles=["demo"]), RunPaths(tmp_path)).engines[0])
    return ask_token(engine, key="k", patience_seconds=1, picture_url=picture)


@pytest.mark.parametrize(
    ("answer", "plain", "with_picture"),
    [
        (Answer(200, b'{"usage": {"prompt_tokens": 9, "completion_tokens": 1}}'), (True, ""), (True, "")),
        (Answer(200, b"no JSON"), (True, ""), (True, "")),
        (Answer(400, b'{"error": {"message": "too long"}}'), (True, ""), (True, "a picture of the media server is not read: status 400, too long")),
        (Answer(500, b"{}"), (False, "a request of one token fails: status 500"), (False, "a picture of the media server is not read: status 500")),
        (
            Answer(None, b"", "Connection refused"),
            (False, "a request of one token fails: Connection refused"),
            (False, "a picture of the media server is not read: Connection refused"),
        ),
        (Answer(None, b"", "timed out"), (False, ""), (False, "")),
    ],
)
def test_reply(tmp_path: Path, answers: list[Answer], answer: Answer, plain: tuple[bool, str], with_picture: tuple[bool, str]) -> None:
    answers += [answer, answer]
    first, second = ask(tmp_path), ask(tmp_path, picture=PICTURE)
    assert (first.answered, first.problem) == plain
    assert (second.answered, second.problem) == with_picture
