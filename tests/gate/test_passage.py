"""Requests on record while they run, and those that are refused for what they did."""

from __future__ import annotations

import hashlib
import json
import os
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.gate.in_flight import LINE_BYTES, MOST_LINES, InFlight, Running, recorded
from qwen_fp8_ops.gate.passage import Passage
from qwen_fp8_ops.gate.poison import PoisonList, Refused

BODY = b'{"messages":[{"content":[{"type":"image_url","image_url":{"url":"x"}},{"type": "video_url", "video_url" : {"url": "y"}}]}]}'
SESSION = os.getsid(0)


def record(body: bytes, *, until: str = "2999-01-01T00:00:00.000Z") -> Refused:
    return Refused("ab12", hashlib.sha256(body).hexdigest(), len(body), 2, "2026-11-21T10:00:00.000Z", "2026-11-21T11:00:00.000Z", until)


def write(path: Path, *records: Refused) -> None:
    path.write_text(json.dumps({"schema": 1, "crashes": [], "refused": [row.as_json() for row in records]}))


@pytest.fixture
def in_flight(tmp_path: Path) -> InFlight:
    made = InFlight()
    made.folder = str(tmp_path / "in-flight")
    return made


def poison(path: Path) -> PoisonList:
    made = PoisonList()
    made.path = str(path)
    return made


@given(cuts=st.lists(st.integers(0, len(BODY)), max_size=5))
def test_a_body_is_known_however_it_arrives(tmp_path_factory: pytest.TempPathFactory, cuts: list[int]) -> None:
    home = tmp_path_factory.mktemp("home")
    running = InFlight()
    running.folder = str(home / "in-flight")
    passage = Passage(poison(home / "poison.json"), running, "id-1")
    places = [0, *sorted(cuts), len(BODY)]
    for begin, end in pairwise(places):
        assert passage.feed(BODY[begin:end], whole=False) is None
    assert recorded(home / "in-flight", SESSION, since=0) == [], "what has not arrived cannot harm"
    assert passage.feed(b"", whole=True) is None
    (found,) = recorded(home / "in-flight", SESSION, since=0)
    assert found[:3] == (hashlib.sha256(BODY).hexdigest(), len(BODY), 2)
    assert found.id == "id-1"


def test_what_ended_well_is_forgotten_and_what_failed_is_kept(tmp_path: Path, in_flight: InFlight) -> None:
    folder = Path(in_flight.folder)
    passages = [Passage(poison(tmp_path / "none"), in_flight, f"id-{number}") for number in range(3)]
    for passage in passages:
        passage.feed(passage._id.encode(), whole=True)
    passages[0].leave(well=True)
    passages[1].leave(well=False)
    assert [one.id for one in recorded(folder, SESSION, since=time.time() - 60)] == ["id-1", "id-2"]
    assert [one.id for one in recorded(folder, SESSION, since=time.time() + 60)] == ["id-2"], "it failed too long ago to matter"
    assert recorded(folder, SESSION + 1, since=0) == []


def test_lines_are_used_again(in_flight: InFlight) -> None:
    running = Running("0" * 64, 1, 0, 0.0, 0.0, "x" * 500)
    for _ in range(100):
        line = in_flight.enter(running)
        assert line is not None
        in_flight.leave(line)
    (file,) = Path(in_flight.folder).iterdir()
    assert file.stat().st_size == LINE_BYTES
    assert file.stat().st_mode & 0o777 == 0o600
    lines = [in_flight.enter(running) for _ in range(MOST_LINES + 5)]
    assert lines.count(None) == 5 and len(set(lines)) == MOST_LINES + 1


def test_a_folder_that_cannot_be_written_stops_no_request(tmp_path: Path, in_flight: InFlight, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "in-flight").write_text("a file")
    passage = Passage(poison(tmp_path / "none"), in_flight, "id")
    assert passage.feed(b"{}", whole=True) is None
    passage.leave(well=True)
    assert "not recorded" in caplog.text


def test_poison_is_refused_until_it_lapses_or_is_lifted(tmp_path: Path, in_flight: InFlight, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen_fp8_ops.gate.poison.LOOK_SECONDS", 0.0)
    file, known = tmp_path / "poison.json", poison(tmp_path / "poison.json")

    def status(body: bytes = BODY) -> int:
        no = Passage(known, in_flight, "id").feed(body, whole=True)
        return no.status if no else 200

    assert status() == 200, "there is no such file"
    write(file, record(BODY))
    assert status() == 422
    assert status(BODY + b" ") == 200, "another request"
    file.write_text("{ this is no JSON")
    assert status() == 422, "a slip of the pen lifts nothing"
    write(file, record(BODY, until="2020-01-01T00:00:00.000Z"))
    assert status() == 200
    write(file, record(BODY))
    assert status() == 422
    file.unlink()
    assert status() == 200


def test_a_damaged_record_is_passed_over() -> None:
    for key, value in (("until", "tomorrow"), ("until", "0001-01-01T00:00:00"), ("body_bytes", float("inf")), ("media", "many")):
        assert Refused.from_json({**record(BODY).as_json(), key: value}) is None, value
    assert Refused.from_json({"id": "x"}) is None
    assert Refused.from_json(None) is None
