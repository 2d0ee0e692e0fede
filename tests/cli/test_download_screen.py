"""What a log file is told of a download: lines, that count what is there, and a rate of what came over the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_fp8_ops.cli import download_screen
from qwen_fp8_ops.cli.download_screen import Lines, Tally
from qwen_fp8_ops.weights.download_plan import DownloadPlan, Item, Presence, Request
from qwen_fp8_ops.weights.hub import HubFile
from qwen_fp8_ops.weights.manifest import ManifestFile
from tests.waiting import wait_for

MB = 10**6
FILES = (Item(HubFile("a", 10 * MB, "x", None), Presence.VERIFIED, 10 * MB), Item(HubFile("b", 90 * MB, "y", None), Presence.PART, 20 * MB))
PLAN = DownloadPlan(Request("o/n", "main", Path("models")), "1" * 40, FILES, None, None)


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock's time; tests put another one."""
    now = [100.0]
    monkeypatch.setattr(download_screen.clock, "monotonic", lambda: now[0])
    return now


def test_a_line_tells_bytes_rate_time_left_and_files(moment: list[float]) -> None:
    tally = Tally(PLAN)
    assert tally.line() == "10.0 MB of 100.0 MB (10 %), 1 of 2 files"
    tally.move(20 * MB, fetched=False)
    moment[0] += 10
    assert tally.line() == "30.0 MB of 100.0 MB (30 %), 1 of 2 files"
    tally.move(20 * MB, fetched=True)
    moment[0] += 10
    assert tally.line() == "50.0 MB of 100.0 MB (50 %), 1 of 2 files, 1.0 MB/s, about 50 s left"


def test_the_rate_is_that_of_the_last_minute(moment: list[float]) -> None:
    tally = Tally(PLAN)
    for _ in range(10):
        tally.move(6 * MB, fetched=True)
        moment[0] += 30
        tally.rate()
    assert tally.rate() == pytest.approx(0.2 * MB)
    for _ in range(3):
        moment[0] += 30
        tally.rate()
    assert tally.rate() == 0


def test_lines_come_also_while_nothing_moves(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(0.01)
    said: list[str] = []
    lines.begin(PLAN)
    wait_for(lambda: said.append(capsys.readouterr().err) or "".join(said).count("10.0 MB of 100.0 MB") >= 3, "three lines came")
    lines.moved("b", 90 * MB, fetched=False)
    lines.finished(ManifestFile("b", 90 * MB, "y", 1))
    wait_for(lambda: "100.0 MB of 100.0 MB (100 %), 2 of 2 files" in capsys.readouterr().err, "the last line came")
    lines.close()
    capsys.readouterr()
    assert not lines._thread.is_alive()


def test_nothing_to_do_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(0.01)
    lines.say("as it is")
    lines.close()
    assert capsys.readouterr().err == "as it is\n"
