"""Real processes killed with real signals, under the real engine."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import pytest

from tests.live.service import LiveService
from tests.waiting import wait_for

pytestmark = pytest.mark.engine


def answers(live: LiveService) -> bool:
    return live.chat("Are you there?").status_code == 200


def session_of(pid: int) -> set[int]:
    """Every process of the session, by /proc: not by what the service says."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[3]) == pid and fields[0] not in "ZX":
                found.add(int(entry.name))
    return found


@pytest.mark.parametrize("victim", ["API server", "EngineCore"])
def test_killed_engine_comes_back_without_orphans(live: LiveService, victim: str) -> None:
    engine = live.pid("engine0")
    members = session_of(engine)
    assert len(members) >= 3, "API server, EngineCore and worker"
    before = live.status()["restarts"]
    os.kill(engine if victim == "API server" else live.engine_core_pid(), signal.SIGKILL)
    wait_for(lambda: live.status()["restarts"] > before, "the engine is started again", 60)
    assert not session_of(engine)
    live.wait_state("ready")
    assert answers(live)
    assert [event["name"] for event in live.events("program-died")][-1] == "engine0"


def test_killed_media_server_comes_back_while_the_engine_serves(live: LiveService) -> None:
    engine, media = live.pid("engine0"), live.pid("media")
    moves = len(live.events("state"))
    os.kill(media, signal.SIGKILL)
    wait_for(lambda: [event["to"] for event in live.events("state")][moves:] == ["degraded", "ready"], "it went degraded and ready")
    assert live.pid("engine0") == engine
    assert live.pid("media") != media
    assert httpx.get(f"{live.media_url}/_health").status_code == 200
    assert answers(live)
