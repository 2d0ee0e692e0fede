"""What the supervisor does about programs that die, hang, are slow or will not end."""

from __future__ import annotations

import json
import os
import signal
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.outside import process
from qwen_fp8_ops.outside.net import can_bind
from qwen_fp8_ops.service import stop as stop_verb
from qwen_fp8_ops.service.stop import Stopped, stop
from tests.service.harness import StandInService
from tests.waiting import wait_for


def stopped_clean(service: StandInService) -> bool:
    return not service.living() and not service.paths.lock.exists() and can_bind("127.0.0.1", service.settings["PORT"])


def chat(service: StandInService, seconds: float) -> int:
    body = f'{{"seconds": {seconds}}}'.encode()
    request = urllib.request.Request(f"http://127.0.0.1:{service.settings['PORT']}/v1/chat/completions", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def chat_that_breaks_off(service: StandInService) -> None:
    with pytest.raises(ConnectionError):
        chat(service, 600)


def test_ready_then_stopped_by_sigterm(service: StandInService) -> None:
    service.started()
    assert service.status()["ok"]
    service.signal(signal.SIGTERM)
    code, said = service.ended()
    assert code == 0, said
    assert service.moves() == ["preflight", "starting", "ready", "draining", "stopping", "stopped"]
    assert stopped_clean(service)
    assert not service.paths.endpoint.exists() and not service.paths.keys.exists()


@pytest.mark.parametrize("name", ["engine0", "media"])
def test_killed_program_is_started_again(service: StandInService, name: str) -> None:
    service.started()
    old = service.pid(name)
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: service.replaced(name, old), f"{name} is back")
    assert [event["name"] for event in service.events("program-died")] == [name]
    assert ("degraded" if name == "media" else "starting") in service.moves()[3:]
    service.signal(signal.SIGTERM)
    assert service.ended()[0] == 0
    assert stopped_clean(service)


def test_workers_of_a_killed_engine_are_ended(service: StandInService) -> None:
    service.started()
    leader = service.pid("engine0")
    workers = [entry["pid"] for entry in service.status()["processes"] if entry["pid"] != leader and entry["role"] == "engine"]
    assert workers
    os.kill(leader, signal.SIGKILL)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "the orphans are gone")


def test_gives_up_after_the_budget(service: StandInService) -> None:
    service.started(RESTART_LIMIT=1)
    for _ in range(2):
        old = service.pid("engine0")
        os.kill(old, signal.SIGKILL)
        wait_for(lambda old=old: service.process.poll() is not None or service.replaced("engine0", old), "it is back or gave up")
    code, said = service.ended()
    assert code == 5, said
    assert "died 2 times within an hour" in said
    assert service.status()["state"] == "gave-up"
    assert service.status()["error"]["code"] == "gave-up"
    assert stopped_clean(service)


def test_media_that_keeps_dying_does_not_take_the_engine_along(service: StandInService) -> None:
    service.started(RESTART_LIMIT=0)
    os.kill(service.pid("media"), signal.SIGKILL)
    wait_for(lambda: service.events("program-given-up"), "media is given up")
    assert service.wait_state("degraded")["ok"]
    assert any("media" in problem["message"] for problem in service.status()["problems"])


def test_start_that_can_never_work_is_not_retried(service: StandInService) -> None:
    service.behave(
        die_with="Traceback (most recent call last):\nValueError: No available memory for the cache blocks. Try increasing it.\nRuntimeError: Engine core initialization failed."
    )
    service.start()
    code, said = service.ended()
    assert code == 1
    assert "No available memory for the cache blocks" in said
    assert "Engine core initialization failed" not in said
    assert len(service.events("program-started")) == 2, "the engine and the media server, once each"
    assert service.status()["state"] == "failed"
    assert stopped_clean(service)


def test_start_that_died_is_tried_once_more(service: StandInService) -> None:
    service.behave(die_with="RuntimeError: NCCL error in: somewhere")
    service.start()
    code, said = service.ended()
    assert code == 5
    assert "NCCL error" in said
    assert len([event for event in service.events("program-started") if event["name"] == "engine0"]) == 2


def test_start_timeout(service: StandInService) -> None:
    service.behave(ready_after=3600)
    service.start(START_TIMEOUT=10)
    code, said = service.ended()
    assert code == 6
    assert "not ready after 10 s" in said
    assert service.status()["error"]["code"] == "start-timeout"
    assert stopped_clean(service)


def test_hung_engine_is_replaced(service: StandInService) -> None:
    service.started(HANG_TIMEOUT=5)
    old = service.pid("engine0")
    os.kill(old, signal.SIGSTOP)
    wait_for(lambda: service.events("program-hangs"), "it is taken for hung")
    wait_for(lambda: service.replaced("engine0", old), "a new engine serves")


def test_running_request_ends_well_while_new_ones_are_refused(service: StandInService) -> None:
    service.started()
    results: list[int] = []
    running = threading.Thread(target=lambda: results.append(chat(service, 2.0)))
    running.start()
    wait_for(lambda: b'"in_flight": 1' in urllib.request.urlopen(f"http://127.0.0.1:{service.settings['PORT']}/service", timeout=5).read(), "the request runs")
    service.signal(signal.SIGTERM)
    service.wait_state("draining")
    assert chat(service, 0) == 503
    running.join(timeout=30)
    assert results == [200]
    assert service.ended()[0] == 0


def test_second_signal_stops_at_once(service: StandInService) -> None:
    service.started(DRAIN_TIMEOUT=3600)
    threading.Thread(target=chat_that_breaks_off, args=(service,), daemon=True).start()
    wait_for(lambda: b'"in_flight": 1' in urllib.request.urlopen(f"http://127.0.0.1:{service.settings['PORT']}/service", timeout=5).read(), "the request runs")
    service.signal(signal.SIGINT)
    service.wait_state("draining")
    service.signal(signal.SIGINT)
    assert service.ended()[0] == 0
    assert stopped_clean(service)


def test_two_stops_are_one(service: StandInService) -> None:
    service.started(DRAIN_TIMEOUT=60)
    results: list[int] = []
    stopped: list[Stopped] = []
    running = threading.Thread(target=lambda: results.append(chat(service, 3.0)))
    running.start()
    service.wait_in_flight(1)
    stops = [threading.Thread(target=lambda: stopped.append(stop(service.paths, print, lambda text: None))) for _ in range(2)]
    for thread in stops:
        thread.start()
        service.wait_state("draining", "stopped")
    for thread in (running, *stops):
        thread.join(timeout=60)
    assert results == [200], "the second did not cut it off"
    assert [one.leftovers for one in stopped] == [(), ()]
    assert service.ended()[0] == 0
    assert stopped_clean(service)


def test_what_an_earlier_supervisor_was_asked_is_not_asked_of_this_one(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    paths.run.mkdir()
    me = process.identify(os.getpid())
    assert me
    earlier = replace(me, start_ticks=me.start_ticks - 1)
    for supervisor, asked, known in ((me, True, True), (me, False, False), (earlier, True, False)):
        paths.state.write_text(json.dumps({"supervisor": supervisor.as_json(), "stop_asked": asked}))
        assert stop_verb._is_asked(paths, me) == known
    for damaged in ("", "[1]", '{"stop_asked": true}'):
        paths.state.write_text(damaged)
        assert not stop_verb._is_asked(paths, me)


def test_engine_that_ignores_sigterm_is_killed(service: StandInService) -> None:
    service.behave(ignore_sigterm=True)
    service.started()
    service.signal(signal.SIGTERM)
    assert service.ended()[0] == 0
    assert stopped_clean(service)


def test_stop_while_loading(service: StandInService) -> None:
    service.behave(ready_after=3600)
    service.start()
    wait_for(lambda: service.events("program-ready"), "the media server is up")
    service.signal(signal.SIGINT)
    assert service.ended()[0] == 130
    assert service.status()["state"] == "stopped"
    assert stopped_clean(service)


def test_disk_that_refuses_the_record_does_not_end_the_service(service: StandInService) -> None:
    service.started()
    run = service.paths.run
    moved = run.with_name("run-moved-away")
    run.rename(moved)
    run.write_text("a file where the folder was")
    os.kill(json_pid(moved, "media"), signal.SIGKILL)  # something that it wants to record
    wait_for(lambda: len(list(service.paths.logs.glob("media.log*"))) == 2, "the media server was started again all the same")
    run.unlink()
    moved.rename(run)
    service.wait_state("ready")
    service.signal(signal.SIGTERM)
    code, said = service.ended()
    assert code == 0
    assert "Cannot write" in said


def json_pid(run: Path, name: str) -> int:
    return next(program["pid"] for program in json.loads((run / "state.json").read_text())["programs"] if program["name"] == name)
