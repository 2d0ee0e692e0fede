"""A request that kills the engine twice is refused; who was there by chance is not. The gate is the real one."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.gate.in_flight import Running
from qwen_fp8_ops.service.crashes import CrashBook
from qwen_fp8_ops.service.wakeups import RESTART_SIGNAL
from tests.service.harness import HERE, StandInService
from tests.waiting import wait_for


@pytest.fixture
def service(tmp_path: Path) -> Iterator[StandInService]:
    stand_in = StandInService(tmp_path / "it's a run")
    stand_in.engine_script = HERE / "gated_engine.py"
    yield stand_in
    stand_in.close()


def chat(service: StandInService, prompt: str, results: list[tuple[int | None, Any]] | None = None) -> tuple[int | None, Any]:
    """Status and body; no status when the connection broke."""
    url = f"http://127.0.0.1:{service.settings['PORT']}/v1/chat/completions"
    body = json.dumps({"messages": [{"role": "user", "content": prompt}], "image_url": "?"}).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"}), timeout=120) as answer:
            found: tuple[int | None, Any] = (answer.status, json.loads(answer.read()))
    except urllib.error.HTTPError as error:
        with error:
            found = (error.code, json.loads(error.read()))
    except OSError as error:
        found = (None, str(error))
    if results is not None:
        results.append(found)
    return found


def crash(service: StandInService, *others: str) -> list[int | None]:
    """Have the poison kill the engine while others run; what came of the others, once a new engine serves."""
    old = service.pid("engine0")
    results: list[tuple[int | None, Any]] = []
    running = [threading.Thread(target=chat, args=(service, other, results)) for other in others]
    for thread in running:
        thread.start()
    if others:
        service.wait_in_flight(len(others))
    assert chat(service, "poison")[0] in (500, None)
    for thread in running:
        thread.join(timeout=60)
    wait_for(lambda: service.replaced("engine0", old), "the engine is back")
    return [status for status, _ in results]


def book(service: StandInService) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(service.paths.poison.read_text())
    return found


@pytest.mark.parametrize("at_once", [True, False], ids=["it died at once", "it told its clients first"])
def test_what_ran_at_both_crashes_is_refused_and_a_bystander_of_one_is_not(service: StandInService, at_once: bool) -> None:
    service.behave(at_once=at_once)
    service.started()
    assert chat(service, "quick")[0] == 200
    broken = None if at_once else 500
    assert crash(service, "bystander") == [broken]
    assert book(service)["refused"] == []
    assert crash(service) == []
    (refused,) = book(service)["refused"]
    first, second = book(service)["crashes"]
    assert [len(first["requests"]), len(second["requests"])] == [2, 1]
    assert refused["sha256"] == second["requests"][0]["sha256"]
    assert (refused["first"], refused["second"], refused["media"]) == (first["time"], second["time"], 1)

    engine = service.pid("engine0")
    status, answer = chat(service, "poison")
    assert status == 422
    assert answer["error"]["type"] == "PoisonRequestError"
    for part in (refused["id"], refused["first"], refused["second"], refused["until"], "run/poison.json"):
        assert part in answer["error"]["message"]
    assert chat(service, "quick")[0] == 200
    assert service.pid("engine0") == engine
    # A record that a person takes out is lifted: the bystander of the first crash was never in.
    service.paths.poison.write_text(json.dumps({**book(service), "crashes": [], "refused": []}))
    wait_for(lambda: chat(service, "poison")[0] != 422, "it is lifted")


def test_a_client_who_asks_again_before_the_engine_is_found_ready_is_known_too(service: StandInService) -> None:
    service.started()
    old = service.pid("engine0")
    service.behave(never_ready=True)
    wait_for(lambda: chat(service, "poison")[0] == 422, "it is refused")
    assert [event["name"] for event in service.events("program-died")] == ["engine0"] * 2
    service.behave()
    wait_for(lambda: service.replaced("engine0", old), "the engine is ready")
    assert chat(service, "quick")[0] == 200


def test_a_start_that_fails_does_not_come_between_two_crashes(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    crashes = CrashBook(paths.poison, paths.in_flight)

    def crash(*prompts: str, served: bool = True) -> list[str]:
        paths.in_flight.mkdir(parents=True, exist_ok=True)
        lines = b"".join(Running(prompt, 1, 0, 1.0, 0.0, "id").line() for prompt in prompts)
        (paths.in_flight / "7-7").write_bytes(lines)
        found = crashes.note("engine0", 7, "killed", served=served, seconds=60, attempt=lambda write: write() is None)
        assert not list(paths.in_flight.iterdir())
        return [refused.sha256 for refused in found]

    assert crash("a", "b") == []
    assert crash(served=False) == []
    assert crash("b", "c", served=False) == ["b"]
    assert crash() == [] and crash("c") == [], "one that served and had nothing to do is a crash like any"


def test_a_record_that_cannot_be_removed_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = RunPaths(tmp_path)
    paths.in_flight.mkdir(parents=True)
    (paths.in_flight / "7-7").write_bytes(Running("a", 1, 0, 1.0, 0.0, "id").line())

    def refuses(path: Path, **how: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "unlink", refuses)
    CrashBook(paths.poison, paths.in_flight).note("engine0", 7, "killed", served=True, seconds=60, attempt=lambda write: True)


def test_records_outlive_the_run_and_what_was_in_flight_does_not(service: StandInService) -> None:
    service.started()
    crash(service)
    crash(service)
    service.signal(signal.SIGTERM)
    assert service.ended()[0] == 0
    assert not service.paths.in_flight.exists()
    service.started()
    assert chat(service, "poison")[0] == 422
    assert any(event["id"] == book(service)["refused"][0]["id"] for event in service.events("request-refused"))


def test_a_restart_leaves_no_file_of_the_engine_before(service: StandInService) -> None:
    service.started()
    old = service.pid("engine0")
    assert chat(service, "quick")[0] == 200
    service.signal(RESTART_SIGNAL)
    wait_for(lambda: service.replaced("engine0", old), "the restart goes on")
    assert chat(service, "quick")[0] == 200
    (file,) = service.paths.in_flight.iterdir()
    assert not file.name.startswith(f"{old}-")


def test_probes_are_not_in_the_audit_and_not_in_flight(service: StandInService) -> None:
    service.started(PROBE_INTERVAL=1, RATE_LIMIT=1)
    assert chat(service, "quick")[0] == 200
    assert chat(service, "quick")[0] == 429, "one a minute"
    wait_for(lambda: service.told()["gate"]["requests_total"] > 20, "it was probed some times")
    lines = [json.loads(line) for line in service.paths.audit.read_text().splitlines()]
    assert [line["status"] for line in lines if line["route"] == "/v1/chat/completions" and line["who"] == "supervisor"] == []
    assert not service.events("program-failing"), "the probes are not limited either"
