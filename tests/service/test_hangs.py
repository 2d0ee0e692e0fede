"""Programs that live and do nothing, and programs that only look so."""

from __future__ import annotations

import os
import signal
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.service.harness import StandInService
from tests.waiting import wait_for

QUICK = {"HANG_TIMEOUT": 8, "PROBE_INTERVAL": 1}


def chat(service: StandInService, seconds: float = 0) -> int | None:
    """The status; None when the connection broke."""
    url = f"http://127.0.0.1:{service.settings['PORT']}/v1/chat/completions"
    request = urllib.request.Request(url, b'{"seconds": %f, "messages": [{"content": "?"}]}' % seconds, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return None


def test_an_engine_whose_loop_is_frozen_is_restarted_though_its_health_page_answers(service: StandInService) -> None:
    service.started(**QUICK)
    old = service.pid("engine0")
    service.behave(frozen=True)
    wait_for(lambda: service.events("program-hangs"), "it is taken for hung")
    service.behave()
    wait_for(lambda: service.replaced("engine0", old), "a new engine serves")
    told = [event["problem"] for event in service.events("program-failing") if event["name"] == "engine0"]
    assert told[0] == "it has work, and for half of HANG_TIMEOUT nothing of it has moved"
    assert "degraded" in service.moves()
    stacks = Path(service.events("program-hangs")[0]["stacks"])
    assert stacks == service.paths.stacks("engine0")
    text = stacks.read_text()
    assert f"=== pid {old}: " in text and "standin_engine.py" in text, text
    assert "state: S" in text


def test_a_long_prompt_is_no_hang(service: StandInService) -> None:
    service.started(**QUICK)
    old = service.pid("engine0")
    answers: list[Any] = []
    service.behave(long_prompt=True)
    asked = threading.Thread(target=lambda: answers.append(chat(service)))
    asked.start()
    # More than twice HANG_TIMEOUT, told by the probes that were due in between.
    wait_for(lambda: service.readings() >= 20, "it read its prompt for a long time")
    service.behave()
    asked.join(timeout=60)
    assert answers == [200]
    assert not service.events("program-hangs") and service.pid("engine0") == old


def test_an_engine_that_is_stopped_is_restarted_with_what_the_kernel_says_of_it(service: StandInService) -> None:
    service.started(**QUICK)
    old = service.pid("engine0")
    os.kill(old, signal.SIGSTOP)
    wait_for(lambda: service.replaced("engine0", old), "a new engine serves")
    assert "state: T (stopped)" in service.paths.stacks("engine0").read_text()


def test_a_media_server_that_is_stopped_is_restarted_and_the_engine_is_not(service: StandInService) -> None:
    service.started(**QUICK)
    media, engine = service.pid("media"), service.pid("engine0")
    os.kill(media, signal.SIGSTOP)
    wait_for(lambda: service.replaced("media", media), "a new media server serves")
    assert [event["name"] for event in service.events("program-hangs")] == ["media"]
    service.wait_state("ready")
    assert service.pid("engine0") == engine


def test_a_media_folder_that_went_away_is_a_problem_and_no_hang(service: StandInService) -> None:
    service.started(**QUICK)
    media = service.pid("media")
    root = service.paths.home / "media"
    root.rename(root.with_name("elsewhere"))
    service.wait_state("degraded")
    assert any("_picture.png is not served" in problem["message"] for problem in service.status()["problems"])
    root.with_name("elsewhere").rename(root)
    service.wait_state("ready")
    assert service.pid("media") == media


def test_pictures_that_do_not_reach_the_engine_degrade_the_service_and_restart_nothing(service: StandInService) -> None:
    service.behave(no_pictures=True)
    service.started(**QUICK)
    engine = service.pid("engine0")
    service.wait_state("degraded")
    problem = "a picture of the media server is not read: status 400, cannot fetch it"
    assert any(problem in told["message"] for told in service.status()["problems"])
    service.behave()
    service.wait_state("ready")
    assert service.pid("engine0") == engine and not service.events("program-hangs")


def test_probes_are_nobodys_load(service: StandInService) -> None:
    service.started(**QUICK)
    wait_for(lambda: service.readings() >= 5, "it was asked some times")
    load = service.status()["engine"]
    assert (load["running"], load["waiting"]) == (0, 0)
    assert (load["prompt_tokens_per_second"], load["generation_tokens_per_second"]) == (0, 0)


@pytest.mark.parametrize("way", ["asked", "restarted"])
def test_a_crash_during_a_drain_is_not_restarted(service: StandInService, way: str) -> None:
    service.started(DRAIN_TIMEOUT=3600)
    old = service.pid("engine0")
    broken: list[Any] = []
    asked = threading.Thread(target=lambda: broken.append(chat(service, 600)))
    asked.start()
    service.wait_in_flight(1)
    service.signal(signal.SIGTERM if way == "asked" else signal.SIGUSR2)
    service.wait_state("draining")
    os.kill(old, signal.SIGKILL)
    asked.join(timeout=60)
    assert broken == [None]
    if way == "asked":
        assert service.ended()[0] == 0
        assert len([event for event in service.events("program-started") if event["name"] == "engine0"]) == 1
    else:
        wait_for(lambda: service.replaced("engine0", old), "the restart goes on")
        assert service.status()["restarts"] == 0, "it was asked for, and is none of the budget"
    assert not service.events("program-died")
