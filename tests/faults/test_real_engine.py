"""The real engine on the CPU.

`make faults ENGINE=real`: a few faults of the matrix, one after the other on one service, and what vLLM's own processes leave behind.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from qwen_fp8_ops.config.paths import RunPaths
from tests.faults.leftovers import Watch
from tests.faults.load import End, Load, events_of, exchange
from tests.faults.table import Row
from tests.live.service import START_SECONDS, LiveService
from tests.waiting import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.engine, pytest.mark.timeout(2 * START_SECONDS)]

HANG_SECONDS = 30
TOKENS = 24


class RealService(LiveService):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.env |= {"QWEN_FP8_HANG_TIMEOUT": str(HANG_SECONDS), "QWEN_FP8_RESTART_LIMIT": "20"}
        self.watch = Watch(RunPaths(self.home), (self.port, self.media_port))
        self.plain_seconds = 0.0

    def timed_start(self) -> float:
        began = time.monotonic()
        self.start()
        self.wait_answers()
        self.watch.look()
        return time.monotonic() - began

    def wait_answers(self) -> None:
        """Looks into the state file: a `status` after the other would take a good part of the time that is measured. Each question is
        another one: the same one in flight at two deaths would be refused as what kills the engine.
        """
        wait_for(lambda: self.state() == "ready" and put(self.port, uuid4().hex, 0, False)[0] is End.WHOLE, "it answers", START_SECONDS)

    def state(self) -> str:
        return str(json.loads((self.home / "run/state.json").read_text())["state"])

    def victim(self, name: str) -> int:
        if name == "core":
            return self.engine_core_pid()
        return self.pid("media" if name == "media server" else "engine0")


def put(port: int, id: str, seconds: float, stream: bool) -> tuple[End, str]:
    body = {"messages": [{"role": "user", "content": f"Tell me of {id}."}], "max_tokens": TOKENS, "ignore_eos": True, "stream": stream}
    return exchange(port, body, is_whole_stream if stream else is_whole, silence_seconds=START_SECONDS)


def is_whole(text: bytes, body: dict[str, Any]) -> bool:
    if json.loads(text)["usage"]["completion_tokens"] != TOKENS:
        raise ValueError("it is not all")
    return True


def is_whole_stream(text: bytes, body: dict[str, Any]) -> bool:
    events = events_of(text)
    if any("error" in event for event in events):
        return False
    if [event["choices"][0]["finish_reason"] for event in events][-1] != "length":
        raise ValueError("it does not say why it ended")
    return True


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealService]:
    made = RealService(tmp_path_factory.mktemp("real"))
    try:
        made.start()  # the first one writes the demo's checkpoint
        assert made.run("stop").returncode == 0
        made.plain_seconds = made.timed_start()
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(
    ("victim", "number"),
    [
        ("API server", signal.SIGKILL),
        ("core", signal.SIGKILL),
        ("core", signal.SIGSEGV),
        ("core", signal.SIGSTOP),
        ("API server", signal.SIGTERM),
        ("media server", signal.SIGKILL),
    ],
    ids=lambda value: str(getattr(value, "name", value)).replace(" ", "_"),
)
def test_a_signal_under_load(real: RealService, victim: str, number: signal.Signals, row: Row) -> None:
    row.fault, row.ended = f"{victim}, {number.name}, under load", "ready again"
    pid = real.victim(victim)
    with Load(real.port, put=put) as load:
        wait_for(lambda: load.whole >= 4, "the load flows", START_SECONDS)
        real.watch.look()
        began = time.monotonic()
        os.kill(pid, number)
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), "it was replaced", START_SECONDS)
        real.wait_answers()
        row.recovered(time.monotonic() - began, real.plain_seconds)
        real.watch.look()
    row.count(load)
    assert load.silent == 0, load.garbled
    assert victim != "media server" or load.told == 0


def test_the_supervisor_is_killed_under_load_and_started_again(real: RealService, row: Row) -> None:
    row.fault, row.ended = "supervisor, SIGKILL, under load", "served on, unwatched; ready after another start"
    with Load(real.port, put=put) as load:
        wait_for(lambda: load.whole >= 4, "the load flows", START_SECONDS)
        real.watch.look()
        os.kill(real.supervisor_pid(), signal.SIGKILL)
        answered = load.whole
        wait_for(lambda: load.whole >= answered + 8, "the load flows on", START_SECONDS)
    row.count(load)
    assert (load.told, load.silent) == (0, 0), load.garbled
    row.recovered(real.timed_start(), real.plain_seconds)


def test_killed_while_it_loads(real: RealService, row: Row) -> None:
    row.fault, row.ended = "core, SIGKILL, loading", "ready again"
    assert real.run("stop").returncode == 0
    began = time.monotonic()
    starter = real.spawn("start", "--profile", "demo", "--detach")
    try:
        core = wait_for(lambda: loading_core(real), "the core loads", START_SECONDS)
        real.watch.look()
        os.kill(core, signal.SIGKILL)
        _, said = starter.communicate(timeout=START_SECONDS)
    finally:
        end(starter)
    assert starter.returncode == 0, said
    real.wait_answers()
    row.recovered(time.monotonic() - began, real.plain_seconds)
    real.watch.look()
    assert len(real.events("program-died")) >= 1


def loading_core(real: RealService) -> int:
    try:
        return real.engine_core_pid()
    except (AssertionError, KeyError, OSError, StopIteration, TypeError):
        return 0


def end(starter: subprocess.Popen[str]) -> None:
    if starter.poll() is None:
        starter.kill()
        starter.communicate()


def test_nothing_is_left_of_all_of_them(real: RealService, row: Row) -> None:
    row.fault, row.ended = "stop after all of these", "no process, port, shared memory or temporary file is left"
    real.watch.look()
    assert real.watch.shared_memory and real.watch.temporary, "vLLM keeps both, or this looks in the wrong place"
    stopped = real.run("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert real.watch.left() == []
