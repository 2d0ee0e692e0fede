"""The service of this folder, or of a job: found by its files, followed when it is started again; and what is seen meanwhile."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import threading
from pathlib import Path

import pytest

from qwen_fp8_ops.cli import batch_screen, run
from qwen_fp8_ops.cli.batch_screen import progress_line, screen_for
from qwen_fp8_ops.client.batch.item import Failure, Outcome
from qwen_fp8_ops.client.batch.run import HOPELESS
from qwen_fp8_ops.client.batch.tally import Tally
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import process
from tests.batch.quick_server import MODEL, Ask, QuickServer, Say, answer, by_content, error, serving
from tests.batch.scenery import make_images, run_batch, texts
from tests.slurm.commands import Commands
from tests.waiting import wait_for


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    (home / "run").mkdir(parents=True)
    monkeypatch.setenv("QWEN_FP8_HOME", str(home))
    make_images(tmp_path / "images", 12)
    monkeypatch.chdir(tmp_path)
    return home


def recorded(home: Path, server: QuickServer, state: str = "ready") -> None:
    """The files of a run whose supervisor is this very process, and whose key is the server's."""
    me = process.identify(os.getpid())
    assert me is not None
    (home / "run/keys").write_text(f"local:{server.key}\n")
    (home / "run/keys").chmod(0o600)
    endpoint = {"schema": 1, "host": me.host, "url": f"{server.url}/v1", "media_url": None, "model": MODEL, "key_file": None}
    (home / "run/endpoint.json").write_text(json.dumps(endpoint))
    (home / "run/plan.json").write_text(json.dumps({"schema": 1, "settings": {"MAX_BODY_MB": "5", "MAX_NUM_SEQS": "3"}}))
    load = {"phase": "weights", "done": 3, "total": 24} if state == "starting" else None
    state_file = home / "run/state.new"
    state_file.write_text(json.dumps({"schema": 1, "state": state, "supervisor": me.as_json(), "programs": [], "load": load}))
    state_file.replace(home / "run/state.json")


def test_it_begins_with_as_many_requests_as_the_engine_works_on(home: Path) -> None:
    with serving(lambda ask: answer("yes", pause=0.3), key="k1") as server:
        recorded(home, server)
        assert run(["caption", "--dataset-path", "images"]) == 0
        assert (server.asked, server.most_at_once) == (12, 3)


def test_it_waits_while_the_service_loads_and_tells_the_phase(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(key="k1") as server:
        recorded(home, server, "starting")
        codes: list[int] = []
        thread = threading.Thread(target=lambda: codes.append(run(["caption", "--dataset-path", "images"])))
        thread.start()
        said = ""
        while "loading weights 3/24" not in said:
            wait_for(thread.is_alive, "it waits")
            said += capfd.readouterr().err
        assert server.asked == 0
        recorded(home, server)
        thread.join(60)
        assert codes == [0]


def test_a_service_that_was_started_again_has_another_key_and_place(home: Path) -> None:
    with serving(key="old") as first, serving(key="new") as second:
        recorded(home, first)

        def script(ask: Ask) -> Say:
            if ask.number == 4:
                recorded(home, second)
                first.key = "nobody's"
            return by_content(ask)

        first.script = script
        assert run(["caption", "--dataset-path", "images", "--concurrency", "1"]) == 0
        assert (first.asked, second.asked) == (5, 7)


def test_the_service_of_a_job(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    commands = Commands(tmp_path, monkeypatch)
    row = ["7", "qwen-vl-fp8", "RUNNING", "main", "node9", "", "N/A", "N/A", "1:00:00", "None", f"qwen-fp8:{home}", str(home)]
    monkeypatch.setenv("QWEN_FP8_HOME", str(tmp_path / "another home"))
    commands.tell("squeue", "\x1f".join(row) + "\n")
    with serving(key="k1") as server:
        recorded(home, server)
        assert run(["caption", "--dataset-path", "images", "--job", "7"]) == 0
        assert server.asked == 12
    commands.tell("squeue", "\x1f".join(row).replace("RUNNING", "FAILED") + "\n")
    assert run(["caption", "--dataset-path", "images", "--job", "7"]) == 3
    assert "It has ended: job 7 FAILED" in capsys.readouterr().err


def test_where_every_request_is_refused_alike_it_does_not_go_on_for_hours(tmp_path: Path) -> None:
    with serving(lambda ask: error(400, "max_tokens is too large")) as server:
        with pytest.raises(OpsError, match="max_tokens is too large") as caught:
            run_batch(tmp_path / "j", server.url, texts(2000))
        assert caught.value.code == "all-failed"
        assert server.asked < 2 * HOPELESS


def test_a_line_of_progress() -> None:
    tally = Tally(total=1000)
    for number in range(120):
        tally.add(Outcome(str(number), "", failure=Failure("server-error", "no", 500) if number < 3 else None))
    tally.in_flight = 16
    line = progress_line(tally)
    assert re.fullmatch(r"120 of 1000 \(12 %\), 3 failed, [0-9.]+ items/s, 0 tokens/s, 16 at once, about [0-9a-z ]+ left", line), line
    tally.waits_for = "the service is starting (weights 3/24)"
    assert progress_line(tally) == "120 of 1000 (12 %), 3 failed; waiting: the service is starting (weights 3/24)"
    assert progress_line(Tally()).startswith("0, 0.0 items/s")  # nobody has counted yet


def test_without_a_terminal_a_line_comes_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_screen, "LINE_SECONDS", 0.01)
    lines: list[str] = []
    with screen_for(Tally(total=5), lines.append):
        wait_for(lambda: len(lines) >= 2, "two lines come")
    assert all(line.startswith("0 of 5 (0 %)") for line in lines)


def test_on_a_terminal_there_is_a_bar_and_words_stand_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(batch_screen, "BAR_SECONDS", 0.01)
    with screen_for(Tally(total=5), print) as say:
        say("waiting: [bold]something[/bold]")
        wait_for(lambda: "0 of 5 (0 %)" in terminal.getvalue(), "the bar is drawn")
    assert "waiting: [bold]something[/bold]" in terminal.getvalue()
