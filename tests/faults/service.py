"""The stand-in service of these tests: the real supervisor, media server and gate around ``engine.py``, and a watch on what it uses."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

from qwen_fp8_ops.outside import process
from qwen_fp8_ops.service.stop import Stopped, stop
from tests.faults.leftovers import Watch, members
from tests.faults.load import End, ask
from tests.service.harness import StandInService
from tests.waiting import wait_for

QUICK = {"HANG_TIMEOUT": 300, "PROBE_INTERVAL": 1, "DRAIN_TIMEOUT": 3, "RESTART_LIMIT": 5}
PATIENCE_SECONDS = 120.0


class FaultyService(StandInService):
    def __init__(self, home: Path, **settings: Any) -> None:
        super().__init__(home, **{**QUICK, **settings})
        self.engine_script = Path(__file__).with_name("engine.py")
        self.watch = Watch(self.paths, (self.settings["PORT"], self.settings["MEDIA_PORT"]))

    @property
    def port(self) -> int:
        return int(self.settings["PORT"])

    def victim(self, name: str) -> int:
        """The pid that is meant by "API server", "core", "media server" or "supervisor"."""
        if name == "supervisor":
            assert self.process
            return self.process.pid
        programs = {program["name"]: program["pid"] for program in self.recorded()["programs"]}
        if name == "media server":
            return int(programs["media"])
        pid = self.core() if name == "core" else int(programs["engine0"])
        assert pid, "it does not run"
        return pid

    def core(self) -> int:
        """0 where there is none."""
        return next((pid for pid in members(self.paths) if "engine_core.py" in process.command_line(pid)), 0)

    def recorded(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.paths.state.read_text())
        return found

    def loads(self) -> bool:
        """Is the engine's core at it?"""
        return self.paths.service_log.exists() and "Starting to load" in self.paths.service_log.read_text()

    def answers(self, **request: Any) -> bool:
        return ask(self.port, "are-you-there", **request)[0] is End.WHOLE

    def wait_answers(self) -> None:
        """Ready by its own word, and by an answer."""
        wait_for(lambda: self.status()["state"] == "ready" and self.answers(), "the service answers again", PATIENCE_SECONDS)

    def seconds_to_ready(self, **settings: Any) -> float:
        """A plain start, from the command to the first answer."""
        began = time.monotonic()
        self.start(**settings)
        self.wait_state("ready")
        assert self.answers()
        self.watch.look()
        return time.monotonic() - began

    def asked(self) -> int:
        """How many requests the gate has seen, the supervisor's probes among them."""
        return int(self.told()["gate"]["requests_total"])

    def stop(self, *, force: bool = False) -> Stopped:
        """As ./stop_service.sh; a supervisor of ours that it ended is waited for."""
        self.watch.look()
        stopped = stop(self.paths, print, lambda text: None, force=force)
        assert not stopped.leftovers, stopped.leftovers
        if self.process:
            self.process.wait(timeout=PATIENCE_SECONDS)
        return stopped

    def living(self) -> list[int]:
        return members(self.paths)  # not by the record, which may be what a test has damaged

    def left(self) -> list[str]:
        """What is left of it; the kernel gets a moment to bury what was killed."""
        try:
            wait_for(lambda: not self.watch.left(), "nothing is left", 5)
        except AssertionError:
            return self.watch.left()
        return []

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
        super().close()
