"""What the supervisor says while it works: lines in a file, one moving line on a terminal, objects where they are asked for."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.outside import clock
from qwen_fp8_ops.report.console import REPEAT_SECONDS, Console
from qwen_fp8_ops.service.states import State

REPOSITORY = Path(__file__).resolve().parents[2]


def loading(done: int) -> dict[str, Any]:
    return {"load": {"phase": "weights", "done": done, "total": 24, "fraction": done / 24, "elapsed_seconds": 10, "eta_seconds": None}}


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock's reading; tests move it."""
    now = [1000.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    return now


def test_lines_go_to_stderr_and_levels_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.say("hello [not] %s {markup}")
    console.say("look out", level="warning")
    assert capsys.readouterr() == ("", "hello [not] %s {markup}\nwarning: look out\n")


def test_in_a_file_progress_is_a_line_at_each_change_and_now_and_then(capsys: pytest.CaptureFixture[str], moment: list[float]) -> None:
    console = Console()
    for done in (1, 1, 2, 2):
        console.update(State.STARTING, loading(done))
    assert capsys.readouterr().err.splitlines() == ["loading weights 1/24, 10 s", "loading weights 2/24, 10 s"]
    moment[0] += REPEAT_SECONDS + 1
    console.update(State.STARTING, loading(2))
    assert capsys.readouterr().err == "loading weights 2/24, 10 s\n"


def test_as_json_every_line_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console("json")
    console.say("ü", level="error")
    console.update(State.STARTING, loading(3))
    console.ready({"url": "http://x"}, 1.25)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["level"], line["message"]) for line in lines] == [
        ("message", "error", "ü"),
        ("progress", "info", "loading weights 3/24, 10 s"),
        ("ready", "info", "ready after 1.2 s at http://x"),
    ]
    assert all(list(line) == ["ts", "level", "event", "message"] and line["ts"].endswith("Z") for line in lines)


def test_whoever_announces_has_the_word(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    Console(announce=lambda: said.append("ready")).ready({}, 1.0)
    assert (said, capsys.readouterr().err) == (["ready"], "")


def test_on_a_terminal_a_line_moves_and_is_gone_at_the_end() -> None:
    program = (
        "from qwen_fp8_ops.report.console import Console; from qwen_fp8_ops.service.states import State\n"
        "console = Console()\n"
        "for done in (1, 2):\n"
        "    console.update(State.STARTING, {'load': {'phase': 'weights', 'done': done, 'total': 2, 'fraction': done / 2}})\n"
        "console.say('a [word] between')\n"
        "console.close(); console.close(); console.say('the end')\n"
    )
    parent, child = pty.openpty()
    try:
        environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run([sys.executable, "-c", program], stderr=child, env=environ, cwd=REPOSITORY, timeout=60)
        os.close(child)
        text = b""
        try:
            while piece := os.read(parent, 65536):
                text += piece
        except OSError:
            pass  # a terminal that nobody holds any more ends so
    finally:
        os.close(parent)
    assert done.returncode == 0
    shown = text.decode()
    assert "loading weights 2/2" in shown
    assert "a [word] between" in shown
    assert shown.endswith("the end\r\n")
    assert "\x1b[?25h" in shown  # the cursor is back


HANGS_UP = """
import os, sys
from qwen_fp8_ops.report.console import Console
from qwen_fp8_ops.service.states import State
console = Console(log_format=sys.argv[1])
console.say("first")
sys.stdin.readline()
for _ in range(3):
    console.say("nobody reads this", level="warning")
    console.progress("nor this")
    console.update(State.READY, {})
console.ready({"url": "u", "model": "m", "media": {"url": "v", "root": "r"}, "needs_key": False}, 1.0)
console.close()
print("went on")
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_reader_that_has_gone_ends_nothing(log_format: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HANGS_UP, log_format], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as speaker:
        assert speaker.stdin and speaker.stdout and speaker.stderr
        assert "first" in speaker.stderr.readline()
        speaker.stderr.close()
        speaker.stdin.write("go on\n")
        speaker.stdin.close()
        assert speaker.stdout.read() == "went on\n"
    assert speaker.returncode == 0


def test_a_full_disk_under_the_log_ends_nothing() -> None:
    script = "from qwen_fp8_ops.report.console import Console\nfor _ in range(3):\n    Console().say('x' * 9000)\nprint('went on')"
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=full, text=True, timeout=60, cwd=REPOSITORY)
    assert done.stdout == "went on\n"
