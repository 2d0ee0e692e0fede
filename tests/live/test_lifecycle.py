"""One service through its life, in order: two starts at once, a restart with keys, a killed supervisor, an interrupted start, the stop."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from qwen_fp8_ops import report
from qwen_fp8_ops.outside.net import can_bind
from tests.live.service import START_SECONDS, LiveService
from tests.live.test_faults import session_of
from tests.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.timeout(2 * START_SECONDS)]

SCHEMA = json.loads((Path(report.__file__).parent / "status.schema.json").read_text())


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    journey = LiveService(tmp_path_factory.mktemp("journey"))
    yield journey
    journey.close()


def valid(status: dict[str, Any]) -> dict[str, Any]:
    jsonschema.validate(status, SCHEMA)
    return status


TOKENS = 700


class Stream:
    """A long answer that is being written, once this is made."""

    def __init__(self, service: LiveService, key: str = "", tokens: int = TOKENS) -> None:
        self._service, self._key, self._asked = service, key, tokens
        self._lines: list[str] = []
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        assert self._begun.wait(START_SECONDS)

    def _read(self) -> None:
        body = {"messages": [{"role": "user", "content": "Go on."}], "max_tokens": self._asked, "ignore_eos": True}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        with httpx.stream("POST", f"{self._service.url}/v1/chat/completions", json=body, headers=headers, timeout=START_SECONDS) as answer:
            for line in answer.iter_lines():
                self._lines.append(line)
                self._begun.set()

    def tokens(self) -> int:
        """How many it had, when it is written to its end."""
        self._thread.join(START_SECONDS)
        assert "data: [DONE]" in self._lines[-2:]
        usage = [json.loads(line[6:])["usage"] for line in self._lines if line.startswith("data: {") and '"usage":{' in line]
        return int(usage[-1]["completion_tokens"])


def test_nothing_runs_yet(service: LiveService) -> None:
    done = service.run("status", "--json")
    assert done.returncode == 3
    assert valid(json.loads(done.stdout))["state"] == "stopped"
    assert service.run("stop").returncode == 0


def test_two_starts_at_once_one_wins(service: LiveService) -> None:
    both = [service.spawn("start", "--profile", "demo", "--detach") for _ in range(2)]
    starting = valid(service.wait_state("starting"))
    assert starting["load"]["phase"]
    results = [(process.communicate(timeout=START_SECONDS), process.returncode) for process in both]
    assert sorted(code for _, code in results) == [0, 1], results
    (_, winner), (_, loser) = sorted(((code, said[1]) for said, code in results), key=lambda pair: pair[0])
    assert "READY after" in winner and f"curl {service.url}/v1/chat/completions" in winner
    assert f"Error: The service is already running (pid {service.supervisor_pid()})" in loser
    assert valid(service.status())["state"] == "ready"


def test_start_on_a_running_service_says_so(service: LiveService) -> None:
    done = service.run("start", "--profile", "demo", "--detach")
    assert done.returncode == 1
    assert f"already running (pid {service.supervisor_pid()}) at {service.url}/v1" in done.stderr


def test_restart_with_keys_keeps_the_media_server(service: LiveService) -> None:
    keys = service.home / "my keys"
    keys.write_text("alice:sesame-open\n# a comment\nbob:second-key\n")
    keys.chmod(0o600)
    engine, media = service.pid("engine0"), service.pid("media")
    done = service.run("restart", "--set", f"API_KEYS_FILE={keys}", "--set", "DRAIN_TIMEOUT=600")  # a busy machine writes slowly
    assert done.returncode == 0, done.stderr + service.logs()
    assert service.pid("media") == media
    assert service.pid("engine0") != engine
    assert not session_of(engine)


@pytest.mark.parametrize(("key", "status"), [("sesame-open", 200), ("second-key", 200), ("sesame-ope", 401), ("", 401)])
def test_keys(service: LiveService, key: str, status: int) -> None:
    assert service.chat("Hello", key=key).status_code == status


def test_keys_are_nowhere_to_be_seen(service: LiveService) -> None:
    internal = (service.home / "run/keys").read_text().split(":")[1].strip()
    assert (service.home / "run/keys").stat().st_mode & 0o077 == 0
    files = [path for folder in ("run", "logs") for path in (service.home / folder).rglob("*") if path.is_file() and path.name != "keys"]
    shown = [path.read_text(errors="replace") for path in files]
    shown += [Path(f"/proc/{pid}/cmdline").read_text() for pid in session_of(service.pid("engine0"))]
    assert not any(key in text for key in ("sesame-open", "second-key", internal) for text in shown)


def test_another_engine_with_other_settings_while_a_request_runs(service: LiveService) -> None:
    engine, media = service.pid("engine0"), service.pid("media")
    stream = Stream(service, "sesame-open", tokens=100)
    done = service.run("restart", "--engine", "--set", "MAX_NUM_SEQS=3", "--json")
    assert done.returncode == 0, done.stderr + service.logs()
    assert stream.tokens() == 100, "the request that ran was answered whole"
    assert service.pid("media") == media
    assert service.pid("engine0") != engine
    assert b"--max-num-seqs=3" in Path(f"/proc/{service.pid('engine0')}/cmdline").read_bytes()
    status = valid(json.loads(done.stdout))
    assert status["change"]["settings"]["MAX_NUM_SEQS"]["to"] == "3"
    assert status["change"]["taken_back"] is None
    assert json.loads(service.run("config", "MAX_NUM_SEQS", "--json").stdout)["running"] == {"MAX_NUM_SEQS": "3"}
    assert service.chat("Hello", key="sesame-open").status_code == 200


def test_what_another_engine_is_not_enough_for_is_named(service: LiveService) -> None:
    engine = service.pid("engine0")
    done = service.run("restart", "--engine", "--set", "MEDIA_ROOT=pictures", "--set", "MAX_NUM_SEQS=2")
    assert done.returncode == 2
    assert "MEDIA_ROOT=pictures (--set; now media)" in done.stderr
    assert "qwen-fp8 restart --set MEDIA_ROOT=pictures" in done.stderr
    assert service.pid("engine0") == engine


def test_wrong_settings_do_not_touch_what_runs(service: LiveService) -> None:
    engine = service.pid("engine0")
    done = service.run("restart", "--set", "MAX_MODEL_LEN=banana")
    assert done.returncode == 2
    assert "MAX_MODEL_LEN=banana" in done.stderr
    assert service.pid("engine0") == engine


def test_killed_supervisor_is_told_and_the_next_start_sweeps(service: LiveService) -> None:
    engine = service.pid("engine0")
    os.kill(service.supervisor_pid(), signal.SIGKILL)
    status = wait_for(lambda: (found := service.status())["state"] == "failed" and found, "status tells that nobody watches")
    assert valid(status)["error"]["code"] == "supervisor-gone"
    assert service.chat("Hello", key="sesame-open").status_code == 200, "the engine goes on until somebody decides"
    done = service.run("start", "--profile", "demo", "--detach")
    assert done.returncode == 0, done.stderr + service.logs()
    assert not session_of(engine)
    assert service.chat("Hello").status_code == 200


def test_stop_lets_a_stream_finish_and_refuses_new_requests(service: LiveService) -> None:
    stream = Stream(service)
    engine, media = service.pid("engine0"), service.pid("media")
    stop = service.spawn("stop")
    wait_for(lambda: httpx.get(f"{service.url}/service").json()["gate"]["draining"], "the gate drains")
    refused = service.chat("Too late?")
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert stream.tokens() == TOKENS
    said = stop.communicate(timeout=START_SECONDS)
    assert stop.returncode == 0, said
    assert not session_of(engine) and not session_of(media)
    assert can_bind("127.0.0.1", service.port) and can_bind("127.0.0.1", service.media_port)
    assert not (service.home / "run/lock").exists()
    assert valid(service.status())["state"] == "stopped"


def test_interrupt_while_loading_leaves_nothing(service: LiveService) -> None:
    start = service.spawn("start", "--profile", "demo")
    wait_for(lambda: service.status()["state"] == "starting" and service.status()["engines"][0]["pid"], "the engine loads", START_SECONDS)
    engine = service.pid("engine0")
    wait_for(lambda: len(session_of(engine)) > 1, "it has children", START_SECONDS)
    start.send_signal(signal.SIGINT)
    said = start.communicate(timeout=START_SECONDS)
    assert start.returncode == 130, said
    assert not session_of(engine)
    assert not (service.home / "run/lock").exists()


def test_context_that_cannot_fit_is_refused_before_anything_loads(service: LiveService) -> None:
    done = service.run("start", "--profile", "demo", "--detach", "--json", "--set", "MAX_MODEL_LEN=1048576")
    assert done.returncode == 4
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "memory-plan"
    assert "Set MAX_MODEL_LEN=" in error["fix"]


def test_failed_start_tells_the_cause(service: LiveService) -> None:
    done = service.run("start", "--profile", "demo", "--detach", "--json", "--set", "VLLM_EXTRA_ARGS=--no-such-flag")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "engine-arguments"
    assert "unrecognized arguments: --no-such-flag" in error["message"]
    assert [event["name"] for event in service.events("program-started")][-2:] == ["media", "engine0"], "it is not tried again"
    assert valid(service.status())["state"] == "failed"
    assert service.run("stop").returncode == 0
