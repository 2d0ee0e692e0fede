"""``qwen-fp8 logs``: the end of each log, and what comes after it."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.cli import run
from qwen_fp8_ops.config.paths import PACKAGE, RunPaths
from qwen_fp8_ops.errors import ExitCode
from qwen_fp8_ops.service.log_files import cut, rotate

PATIENCE_SECONDS = 30


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    found = RunPaths(tmp_path / "the run's home")
    found.logs.mkdir(parents=True)
    found.run.mkdir()
    monkeypatch.setenv("QWEN_FP8_HOME", str(found.home))
    monkeypatch.setenv("TZ", "UTC")
    return found


@pytest.fixture
def logs(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str, code: ExitCode = ExitCode.DONE) -> Any:
        assert run(["logs", *arguments]) == code
        captured = capsys.readouterr()
        if "--json" in arguments:
            assert captured.err == ""
            return json.loads(captured.out)
        return captured.out.splitlines() if code is ExitCode.DONE else captured.err

    return call


def test_the_last_lines_of_each_log(paths: RunPaths, logs: Any) -> None:
    paths.service_log.write_text("".join(f"line {number}\n" for number in range(100)))
    paths.media_log.write_text("media\n")
    paths.audit.write_text('{"route": "/v1/models"}\n')
    paths.supervisor_log.write_text("supervisor\n")
    assert logs() == [f"line {number}" for number in range(50, 100)]
    assert logs("-n", "2") == ["line 98", "line 99"]
    assert logs("--lines", "0") == []
    assert logs("--media") == ["media"]
    assert logs("--audit") == ['{"route": "/v1/models"}']
    assert logs("--supervisor") == ["supervisor"]


def test_more_lines_than_there_are_gives_all(paths: RunPaths, logs: Any) -> None:
    paths.service_log.write_text("".join(f"{'x' * 100} {number}\n" for number in range(30_000)))
    assert len(logs("-n", "20000")) == 20_000


def test_a_progress_bar_becomes_lines_and_bad_bytes_do_no_harm(paths: RunPaths, logs: Any) -> None:
    paths.service_log.write_bytes(b"Loading:  0%\rLoading: 50%\rLoading: 100%\r\n\n\xff end")
    assert logs() == ["Loading:  0%", "Loading: 50%", "Loading: 100%", "\ufffd end"]


def test_json_names_the_file_and_gives_raw_lines(paths: RunPaths, logs: Any) -> None:
    paths.service_log.write_text("a\nb\n")
    assert logs("--json", "-n", "1") == {"schema": 1, "ok": True, "file": str(paths.service_log), "lines": ["b"]}
    paths.events.write_text('{"time": "2031-01-02T12:00:01.000Z", "event": "x"}\n')
    assert json.loads(logs("--events", "--json")["lines"][0])["event"] == "x"


def test_earlier_attempts_have_numbers(paths: RunPaths, logs: Any) -> None:
    for text in ("first", "second", "third"):
        rotate(paths.service_log)
        paths.service_log.write_text(f"{text}\n")
    assert (logs(), logs("--attempt", "1"), logs("--attempt", "2")) == (["third"], ["second"], ["first"])
    assert "No earlier file 3 of service.log: there is 1, 2" in logs("--attempt", "3", code=ExitCode.FAILED)


def test_before_anything_was_started_it_says_so(paths: RunPaths, logs: Any) -> None:
    message = logs(code=ExitCode.NOT_RUNNING)
    assert "Nothing was started in" in message
    assert "./start_service.sh" in message
    assert logs("--media", "--json", code=ExitCode.NOT_RUNNING)["error"]["code"] == "no-log"
    assert "Nothing was started" in logs("-f", code=ExitCode.NOT_RUNNING)


def test_a_log_that_is_missing_beside_others_is_another_message(paths: RunPaths, logs: Any) -> None:
    paths.supervisor_log.touch()
    assert "Nothing wrote" in logs(code=ExitCode.NOT_RUNNING)


def test_a_folder_in_the_place_of_a_log(paths: RunPaths, logs: Any) -> None:
    paths.service_log.mkdir()
    assert "cannot be read: Is a directory" in logs(code=ExitCode.FAILED)


@pytest.mark.parametrize("arguments", [("--media", "--events"), ("-f", "--json"), ("-f", "--attempt", "1"), ("-n", "-1"), ("-n", "x"), ("--attempt", "0")])
def test_options_that_do_not_go_together(arguments: tuple[str, ...], paths: RunPaths, logs: Any) -> None:
    paths.service_log.touch()
    logs(*arguments, code=ExitCode.USAGE)


# --- following ------------------------------------------------------------------------------------------------------------------


class Follower:
    """``qwen-fp8 logs -f`` in a process of its own, its lines as they come."""

    def __init__(self, *arguments: str) -> None:
        argv = [sys.executable, "-P", "-m", "qwen_fp8_ops", "logs", "-f", *arguments]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)})
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))

    def lines(self, count: int) -> list[str]:
        return [self._lines.get(timeout=PATIENCE_SECONDS) for _ in range(count)]

    def interrupt(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> tuple[int, str]:
        assert self.process.stderr
        assert self.process.stdout
        code = self.process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        with self.process.stderr as stderr, self.process.stdout:
            return code, stderr.read()


@pytest.fixture
def follow(paths: RunPaths) -> Iterator[Any]:
    started: list[Follower] = []

    def start(*arguments: str) -> Follower:
        started.append(Follower(*arguments))
        return started[-1]

    yield start
    for follower in started:
        if follower.process.returncode is None:
            follower.process.kill()
            follower.end()


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_following_goes_on_over_rotation_and_cutting_until_ctrl_c(paths: RunPaths, follow: Any) -> None:
    log = paths.service_log
    log.write_text("one\ntwo\nthree\nhal")
    follower = follow("-n", "2")
    assert follower.lines(2) == ["two", "three"]
    append(log, "f\nfour\n")
    assert follower.lines(2) == ["half", "four"]
    # What was written just before the file was moved away or emptied is not lost.
    append(log, "last of this attempt\n")
    rotate(log)
    log.write_text("next attempt, which is much longer than what was there before it began\n")
    assert follower.lines(2) == ["last of this attempt", "next attempt, which is much longer than what was there before it began"]
    append(log, "before the cut\n")
    assert cut(log, 1)
    append(log, "after\n")
    assert follower.lines(2) == ["before the cut", "after"]
    log.write_text("")
    append(log, "new\n")
    assert follower.lines(1) == ["new"]
    assert follower.interrupt() == (0, "")


def test_following_events_shows_them_in_words(paths: RunPaths, follow: Any) -> None:
    paths.events.write_text('{"time": "2031-01-02T12:00:01.000Z", "event": "program-started", "name": "engine0", "pid": 1, "attempt": 1}\n')
    follower = follow("--events")
    assert follower.lines(2) == ["--- 2031-01-02 ---", "12:00:01 engine0 started (pid 1, attempt 1)"]
    append(paths.events, '{"time": "2031-01-02T12:00:03.000Z", "event": "ready", "seconds": 2.5}\n')
    assert follower.lines(1) == ["12:00:03 the service is ready after 2.5 s"]
    assert follower.interrupt() == (0, "")


def test_following_into_a_closed_pipe_ends_quietly(paths: RunPaths) -> None:
    paths.service_log.write_text("one\n")
    argv = [sys.executable, "-P", "-m", "qwen_fp8_ops", "logs", "-f"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)}) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "one\n"
        process.stdout.close()
        append(paths.service_log, "two\n")
        assert process.wait(PATIENCE_SECONDS) == 0
        assert process.stderr.read() == ""
