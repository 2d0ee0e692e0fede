"""The real engine, frozen by SIGSTOP in the middle of its work, and the real engine that only has too much of it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.live.service import LiveService
from tests.live.test_faults import session_of
from tests.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

HANG_SECONDS = 30
"""HANG_TIMEOUT here. A step of this engine takes milliseconds, also on a busy machine."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    made = LiveService(tmp_path_factory.mktemp("hangs"))
    made.env["QWEN_FP8_HANG_TIMEOUT"] = str(HANG_SECONDS)
    made.start()
    yield made
    stopped = made.run("stop")
    made.close()
    assert stopped.returncode == 0, stopped.stderr


def worker_pid(service: LiveService) -> int:
    for pid in session_of(service.pid("engine0")):
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"VLLM::Worker"):
            return pid
    raise AssertionError("there is no worker")


def test_a_full_queue_is_no_hang(service: LiveService) -> None:
    """Many times the requests that run at once, for more than twice HANG_TIMEOUT: probes wait in the queue like everybody."""
    engine, until = service.pid("engine0"), time.monotonic() + 2.5 * HANG_SECONDS
    statuses: list[int] = []

    def ask_on() -> None:
        while time.monotonic() < until:
            statuses.append(service.chat("Tell me all you know.", timeout=600, max_tokens=40, ignore_eos=True).status_code)

    clients = [threading.Thread(target=ask_on) for _ in range(24)]
    for client in clients:
        client.start()
    wait_for(lambda: service.status()["engine"]["waiting"] > 0, "requests wait", 120)
    for client in clients:
        client.join(timeout=600)
    assert set(statuses) == {200}
    assert not service.events("program-hangs")
    assert service.pid("engine0") == engine and service.status()["state"] == "ready"


@pytest.mark.parametrize("victim", ["EngineCore", "worker"])
def test_a_frozen_engine_is_restarted_and_its_stacks_are_kept(service: LiveService, victim: str) -> None:
    engine, before = service.pid("engine0"), len(service.events("program-hangs"))
    members = session_of(engine)
    frozen = service.engine_core_pid() if victim == "EngineCore" else worker_pid(service)
    os.kill(frozen, signal.SIGSTOP)
    assert httpx.get(f"{service.url}/health", timeout=30).status_code == 200, "this is why health alone is not asked"
    wait_for(lambda: len(service.events("program-hangs")) > before, "it is taken for hung", 4 * HANG_SECONDS)
    service.wait_state("ready")
    assert service.pid("engine0") != engine
    assert not members & session_of(engine)
    assert service.chat("Are you there?").status_code == 200
    text = (service.home / "logs/stacks-engine0.log").read_text()
    assert f"=== pid {frozen}: VLLM::" in text and "state: T (stopped)" in text
    assert "most recent call first" in text, "the API server wrote its Python stacks"
