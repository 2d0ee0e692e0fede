"""A supervisor in the background, and what its starter says of it: also when another start happens at the same moment."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import lock, process
from qwen_fp8_ops.plan.launch import make_plan
from qwen_fp8_ops.report.console import Console
from qwen_fp8_ops.service.changeover import Request
from qwen_fp8_ops.service.detach import _new_log, restart
from qwen_fp8_ops.service.stop import stop
from tests.service.harness import PATIENCE_SECONDS, StandInService
from tests.waiting import wait_for

HELD_BACK = """
import os, sys, time
while not os.path.exists(sys.argv[1]):
    time.sleep(0.02)
os.execv(sys.argv[2], sys.argv[2:])
"""

OF_AN_EARLIER_RUN = """
import os, sys, time
from dataclasses import replace
from pathlib import Path
from qwen_fp8_ops.outside import process
from qwen_fp8_ops.outside.files import write_json
me = process.identify(os.getpid())
write_json(Path(sys.argv[1]), {"state": "ready", "supervisor": replace(me, start_ticks=me.start_ticks - 1).as_json()})
time.sleep(1)
sys.exit("Error: this start failed")
"""


def held_back(until: Path, command: list[str]) -> list[str]:
    """The command, begun when the file is there."""
    return [sys.executable, "-c", HELD_BACK, str(until), *command]


def failing(words: str) -> list[str]:
    return ["/bin/sh", "-c", 'echo "begun"; echo "$1" >&2; exit 1', "sh", words]


def ended(starter: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = starter.communicate(timeout=PATIENCE_SECONDS)
    return starter.returncode, said


def begun(service: StandInService, starter: subprocess.Popen[str]) -> subprocess.Popen[str]:
    """Once its supervisor has a log."""
    wait_for(service.paths.supervisor_log.exists, "the supervisor is begun")
    return starter


def running_pid(service: StandInService) -> int:
    holder = lock.holder(service.paths.lock)
    assert holder
    assert holder.alive
    return holder.pid


def test_a_start_in_the_background_returns_when_the_service_is_ready(service: StandInService) -> None:
    code, said = ended(service.start_detached(service.command()))
    assert code == 0, said
    assert service.status()["state"] == "ready"
    assert stop(service.paths, print, print).was_running


def test_of_two_starts_at_once_one_wins_and_the_other_says_so(service: StandInService) -> None:
    command = service.command()
    for _ in range(4):
        results = [ended(starter) for starter in [service.start_detached(command) for _ in range(2)]]
        (won, _), (lost, said) = sorted(results)
        assert (won, lost) == (0, 1), results
        assert f"Error: The service is already running (pid {running_pid(service)})" in said
        assert "[already-running]" in said
        assert service.status()["state"] == "ready"
        stop(service.paths, print, print)


def test_the_second_says_so_although_the_log_is_the_firsts(service: StandInService, tmp_path: Path) -> None:
    command, go = service.command(), tmp_path / "go"
    slow = begun(service, service.start_detached(held_back(go, command)))
    assert ended(service.start_detached(command))[0] == 0
    go.touch()
    code, said = ended(slow)
    assert (code, said.count("Error: ")) == (1, 1)
    assert f"Error: The service is already running (pid {running_pid(service)})" in said
    assert "[already-running]" in said
    stop(service.paths, print, print)


def test_a_start_that_fails_tells_its_own_reason(service: StandInService, tmp_path: Path) -> None:
    go = tmp_path / "go"
    slow = begun(service, service.start_detached(held_back(go, failing("Error: of the first"))))
    assert ended(service.start_detached(failing("Error: of the second"))) == (1, "Error: of the second [start-failed]\n")
    go.touch()
    assert ended(slow) == (1, "Error: of the first [start-failed]\n")


def test_a_line_that_is_no_reason_is_not_told_as_one(service: StandInService) -> None:
    killed = ["/bin/sh", "-c", 'echo "Building ..."; echo; kill -KILL $$']
    words = "The supervisor ended before the service was ready. The last it said:"
    assert ended(service.start_detached(killed)) == (1, f"Error: {words} Building ... [start-failed]\n")
    assert ended(service.start_detached(["/bin/true"])) == (1, f"Error: {words} nothing [start-failed]\n")


def test_a_command_that_cannot_be_started(service: StandInService) -> None:
    assert ended(service.start_detached(["/no/such python"])) == (1, "Error: Cannot start /no/such python: No such file or directory [cannot-start]\n")


def test_an_earlier_supervisor_of_the_same_pid_is_not_taken_for_this_one(service: StandInService) -> None:
    command = [sys.executable, "-c", OF_AN_EARLIER_RUN, str(service.paths.state)]
    assert ended(service.start_detached(command)) == (1, "Error: this start failed [start-failed]\n")


def test_starts_at_once_have_a_log_each(tmp_path: Path) -> None:
    """The file at the path may be moved by the next start; it is never shared."""
    path, logs, together = tmp_path / "supervisor.log", list[IO[bytes]](), threading.Barrier(8)

    def start() -> None:
        together.wait()
        logs.extend(_new_log(path) for _ in range(20))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(logs) == 160
    for one, other in itertools.combinations(logs, 2):
        assert not os.path.sameopenfile(one.fileno(), other.fileno())
    for log in logs:
        log.close()


def test_a_restart_needs_no_record_that_can_be_understood(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    paths.run.mkdir()
    paths.state.write_text("[1]")
    me = process.identify(os.getpid())
    assert me
    request = Request(make_plan(load(profiles=["demo"]), paths), keep_weights=True)
    with pytest.raises(OpsError, match="ended before the service was ready"):
        restart(request, replace(me, start_ticks=me.start_ticks - 1), paths, Console())
    assert paths.next_plan.exists()
