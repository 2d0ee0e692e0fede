"""Events in words."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import qwen_fp8_ops
from qwen_fp8_ops.report.event_text import WORDS, EventText, describe

TODAY = date(2031, 1, 2)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def line(event: str, stamp: str = "2031-01-02T12:00:01.500Z", **facts: object) -> str:
    return json.dumps({"time": stamp, "event": event, **facts})


@pytest.mark.parametrize(
    ("event", "facts", "text"),
    [
        ("program-started", {"name": "engine0", "pid": 1, "attempt": 2}, "engine0 started (pid 1, attempt 2)"),
        ("program-ready", {"name": "media", "seconds": 0.3}, "media ready after 0.3 s"),
        ("program-failing", {"name": "engine0", "problem": "no answer"}, "engine0 fails its probes: no answer"),
        ("program-died", {"name": "engine0", "how": "killed by SIGKILL", "cause": []}, "engine0 died: killed by SIGKILL"),
        ("program-died", {"name": "e", "how": "exit code 1", "cause": ["ValueError: a", "b"]}, "e died: exit code 1\nValueError: a\nb"),
        ("request-refused", {"id": "ab12", "until": "T"}, "a request that ran at two crashes is refused until T (ab12 in run/poison.json)"),
        ("program-hangs", {"name": "e", "seconds": 300, "problem": "timed out"}, "e hangs: no good answer for 300 s (timed out)"),
        ("program-given-up", {"name": "e", "why": "it died twice"}, "e is not started again: it died twice"),
        ("not-ended", {"name": "e", "pids": [1, 2]}, "e left processes that do not end: pid 1, 2"),
        ("ready", {"seconds": 30.1}, "the service is ready after 30.1 s"),
        ("stopped", {"seconds": 1.5, "leftovers": []}, "stopped in 1.5 s, everything is gone"),
        ("stopped", {"seconds": 1.5, "leftovers": ["pid 7", "port 1"]}, "stopped in 1.5 s, but not everything is gone: pid 7; port 1"),
        ("state", {"from": "starting", "to": "ready", "why": ""}, "starting -> ready"),
        ("state", {"from": "ready", "to": "degraded", "why": "media: gone"}, "ready -> degraded: media: gone"),
        (
            "wall-time-near",
            {"how": "SIGUSR1", "ends_at": "2031-01-01T00:00:00.000Z", "then": "chain"},
            "the wall time is near (SIGUSR1; it ends at 2031-01-01T00:00:00.000Z), then: chain",
        ),
        ("end-moved", {"ends_at": None}, "the allocation now ends at no set time"),
        ("chained", {"job_id": "12"}, "job 12 follows when this one has ended"),
        ("some-new-event", {"a": 1, "b": "c"}, "some-new-event a=1 b=c"),
        ("program-died", {"other": 1}, "program-died other=1"),
    ],
)
def test_each_event_has_its_words(event: str, facts: dict[str, object], text: str) -> None:
    assert describe({"event": event, **facts}) == text


def test_a_line_has_its_time_and_evidence_is_indented() -> None:
    text = EventText(TODAY)
    assert text.render(line("program-died", name="e", how="exit code 1", cause=["a", "b"])) == ["12:00:01 e died: exit code 1", "         a", "         b"]


def test_another_day_is_announced_once() -> None:
    text = EventText(TODAY)
    stamps = ["2031-01-01T23:59:59.000Z", "2031-01-01T23:59:59.500Z", "2031-01-02T00:00:01.000Z"]
    printed = [printed for stamp in stamps for printed in text.render(line("x", stamp))]
    assert printed == ["--- 2031-01-01 ---", "23:59:59 x", "23:59:59 x", "--- 2031-01-02 ---", "00:00:01 x"]


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["time", "event", "x"]), inner)).map(json.dumps))
def test_a_line_that_is_no_event_stays_as_it_is(text: str) -> None:
    assert EventText(TODAY).render(text) == [text]


def test_every_event_that_is_recorded_has_words() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (Path(qwen_fp8_ops.__file__).parent / "service").glob("*.py"))
    recorded = set(re.findall(r"(?:recorder|self)\.event\(\s*\"([^\"]+)\"", source))
    assert len(recorded) > 5
    assert recorded == set(WORDS)
