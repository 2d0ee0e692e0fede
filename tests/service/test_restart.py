"""Other settings for a service that runs: what stays, what its clients notice, and the way back when it does not start with them."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.errors import ExitCode, OpsError
from qwen_fp8_ops.plan.launch import LaunchPlan
from qwen_fp8_ops.report.console import Console
from qwen_fp8_ops.report.text import render_status
from qwen_fp8_ops.service import detach
from qwen_fp8_ops.service.changeover import Request
from tests.service.harness import StandInService
from tests.service.test_supervision import chat, stopped_clean
from tests.service.warm_service import WarmService
from tests.waiting import wait_for

NEVER = "ValueError: No available memory for the cache blocks. Try increasing it."
PERHAPS = "RuntimeError: NCCL error in: somewhere"


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[WarmService]:
    service = WarmService(tmp_path / "it's a warm run")
    yield service
    service.close()


def restart(service: StandInService, plan: LaunchPlan, *, keep_weights: bool = True) -> dict[str, Any]:
    """As `qwen-fp8 restart` does when all is checked; returns when the service is ready again.

    Raises:
        OpsError: it did not start with the plan.
    """
    return detach.restart(Request(plan, keep_weights), detach.running_supervisor(service.paths), service.paths, Console())


def with_behaviour(service: StandInService, plan: LaunchPlan, **behaviour: Any) -> LaunchPlan:
    """The plan with an engine that behaves in its own way, whatever the others do."""
    file = service.paths.home / "behaviour-of-the-new.json"
    file.write_text(json.dumps(behaviour))

    def told(words: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(file) if word == str(service.behaviour_file) else word for word in words)

    engines = [replace(program, argv=told(program.argv), argv_alone=told(program.argv_alone)) if program.is_engine else program for program in plan.programs]
    return replace(plan, programs=tuple(engines))


def recorded_plan(service: StandInService) -> LaunchPlan:
    return LaunchPlan.from_json(json.loads(service.paths.plan.read_text()))


def stop(service: StandInService) -> None:
    service.signal(signal.SIGTERM)
    code, said = service.ended()
    assert code == 0, said
    assert stopped_clean(service)


def test_running_requests_finish_new_ones_are_refused_and_the_weights_stay(warm: WarmService) -> None:
    warm.started(MAX_NUM_SEQS=2)
    old = {name: warm.pid(name) for name in ("weight-cache", "media", "engine0")}
    answers: list[int] = []
    running = threading.Thread(target=lambda: answers.append(chat(warm, 3.0)))
    running.start()
    warm.wait_in_flight(1)
    plan = warm.plan(MAX_NUM_SEQS=3)
    done = threading.Thread(target=restart, args=(warm, plan))
    done.start()
    warm.wait_state("draining")
    assert chat(warm, 0) == 503
    running.join()
    assert answers == [200]
    done.join()
    warm.wait_state("ready")
    assert {name: warm.pid(name) for name in ("weight-cache", "media")} == {name: old[name] for name in ("weight-cache", "media")}
    assert warm.pid("engine0") != old["engine0"]
    assert warm.lives() == ["cache begins", "engine begins with mapped weights", "engine ended", "engine begins with mapped weights"]
    status = warm.status()
    assert status["change"]["settings"] == {"MAX_NUM_SEQS": {"from": "2", "to": "3"}}
    assert "changed   MAX_NUM_SEQS=3 (was 2), restarted" in render_status(status)
    assert recorded_plan(warm).settings.max_num_seqs == 3
    assert json.loads(warm.paths.gate.read_text())["draining"] is False
    stop(warm)


def test_a_restart_of_all_reads_the_weights_anew(warm: WarmService) -> None:
    warm.started()
    old = {name: warm.pid(name) for name in ("weight-cache", "media")}
    state = restart(warm, warm.plan(), keep_weights=False)
    assert state["change"]["settings"] == {}
    assert warm.pid("media") == old["media"]
    assert warm.pid("weight-cache") != old["weight-cache"]
    begins = ["cache begins", "engine begins with mapped weights"]
    assert warm.lives() == [*begins, "engine ended", "cache ended", *begins]
    stop(warm)


def test_another_cache_is_another_program(warm: WarmService) -> None:
    warm.started()
    old, plan = warm.pid("weight-cache"), warm.plan()
    changed = [replace(program, env={**program.env, "OTHER": "1"}) if program.is_weight_cache else program for program in plan.programs]
    restart(warm, replace(plan, programs=tuple(changed)), keep_weights=True)
    assert warm.pid("weight-cache") != old
    stop(warm)


@pytest.mark.parametrize(("words", "tries"), [(NEVER, 1), (PERHAPS, 2)])
def test_settings_that_do_not_start_are_taken_back(warm: WarmService, words: str, tries: int) -> None:
    warm.started(MAX_NUM_SEQS=2)
    cache, old = warm.pid("weight-cache"), warm.pid("engine0")
    plan = with_behaviour(warm, warm.plan(MAX_NUM_SEQS=999), die_with=words)
    with pytest.raises(OpsError) as refused:
        restart(warm, plan)
    assert refused.value.code == "settings-taken-back"
    assert refused.value.message.startswith("It does not start with MAX_NUM_SEQS=999, and serves again with the settings of before. The engine does not run")
    warm.wait_state("ready")
    assert (warm.pid("weight-cache"), warm.pid("engine0") != old) == (cache, True)
    assert recorded_plan(warm).settings.max_num_seqs == 2
    died = [event for event in warm.events("program-died") if event["name"] == "engine0"]
    assert len(died) == tries
    assert [event["settings"] for event in warm.events("settings-taken-back")] == [{"MAX_NUM_SEQS": {"from": "2", "to": "999"}}]
    status = warm.status()
    assert status["ok"]
    assert [problem["code"] for problem in status["problems"] if problem["code"].startswith("settings")] == ["settings-taken-back"]
    assert "It did not start with MAX_NUM_SEQS=999" in render_status(status)
    assert chat(warm, 0) == 200
    restart(warm, warm.plan(MAX_NUM_SEQS=3))
    assert not [problem for problem in warm.status()["problems"] if problem["code"] == "settings-taken-back"], "the next change is another matter"
    stop(warm)


def test_where_the_settings_of_before_do_not_start_either_the_service_fails(service: StandInService) -> None:
    service.started()
    plan = with_behaviour(service, service.plan(MAX_NUM_SEQS=999), die_with=NEVER)
    service.behave(die_with="RuntimeError: the disk is gone")
    with pytest.raises(OpsError, match="the disk is gone"):
        restart(service, plan)
    code, _ = service.ended()
    assert code == ExitCode.GAVE_UP
    assert stopped_clean(service)


def test_the_same_settings_once_more_have_nothing_to_go_back_to(service: StandInService) -> None:
    service.started()
    service.behave(die_with=NEVER)
    with pytest.raises(OpsError, match="No available memory"):
        restart(service, service.plan())
    assert service.ended()[0] == ExitCode.FAILED
    assert not service.events("settings-taken-back")


def test_a_second_change_on_top_of_one_that_was_never_ready_goes_back_to_what_served(service: StandInService) -> None:
    service.started(MAX_NUM_SEQS=2)
    supervisor = detach.running_supervisor(service.paths)
    Request(with_behaviour(service, service.plan(MAX_NUM_SEQS=3), ready_after=3600), keep_weights=True).write(service.paths)
    os.kill(supervisor.pid, signal.SIGUSR2)
    wait_for(lambda: service.events("restart"), "the first change is taken up")
    with pytest.raises(OpsError):
        restart(service, with_behaviour(service, service.plan(MAX_NUM_SEQS=4), die_with=NEVER))
    assert recorded_plan(service).settings.max_num_seqs == 2
    assert service.status()["change"]["settings"] == {"MAX_NUM_SEQS": {"from": "2", "to": "4"}}
    stop(service)


def test_a_media_server_that_was_given_up_is_tried_again(service: StandInService) -> None:
    service.started(RESTART_LIMIT=0)
    os.kill(service.pid("media"), signal.SIGKILL)
    wait_for(lambda: service.events("program-given-up"), "media is given up")
    restart(service, service.plan(RESTART_LIMIT=0))
    service.wait_state("ready")
    stop(service)


def test_a_damaged_request_restarts_with_what_there_is(service: StandInService) -> None:
    service.started()
    old, supervisor = service.pid("engine0"), detach.running_supervisor(service.paths)
    service.paths.next_plan.write_text('{"schema": 1, "plan": {}}')
    os.kill(supervisor.pid, signal.SIGUSR2)
    wait_for(lambda: service.replaced("engine0", old), "another engine serves")
    stop(service)


def test_stop_during_the_way_back(service: StandInService) -> None:
    service.started()
    supervisor = detach.running_supervisor(service.paths)
    Request(with_behaviour(service, service.plan(MAX_NUM_SEQS=3), die_with=NEVER), keep_weights=True).write(service.paths)
    service.behave(ready_after=3600)
    os.kill(supervisor.pid, signal.SIGUSR2)
    wait_for(lambda: service.events("settings-taken-back"), "it goes back")
    service.signal(signal.SIGTERM)
    assert service.ended()[0] in (ExitCode.DONE, ExitCode.INTERRUPTED)
    assert stopped_clean(service)
