"""The demo service under a benchmark, in a home folder of its own: what it says of itself, and what can be done to it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.under_load.accounts import AuditAccount
from qwen_fp8_ops.service.log_files import last_lines
from tests.live.service import LiveService
from tests.live.test_faults import session_of

PATIENCE_SECONDS = 900.0
MODEL = "qwen3-vl-fp8"
POLL_SECONDS = 0.05
LINES_SECONDS = 20.0


class NotBackError(RuntimeError):
    """The service did not come back from a fault."""


class DemoService(LiveService):
    """Restarts as often as it takes. Event moments are monotonic seconds."""

    def __init__(self, folder: Path, **settings: object) -> None:
        super().__init__(folder)
        self.env |= {f"QWEN_FP8_{key}": str(value) for key, value in {"RESTART_LIMIT": 1000, "START_TIMEOUT": 3600, **settings}.items()}
        self._zero = time.time() - time.monotonic()
        self.stop_problem = ""

    def all_events(self) -> list[dict[str, Any]]:
        """Each with its ``moment``; a line that is still being written is left for the next time."""
        text = (self.home / "run/events.jsonl").read_text()
        found = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        return [{**event, "moment": datetime.fromisoformat(event["time"]).timestamp() - self._zero} for event in found]

    def event_after(self, moment: float, kind: str, name: str) -> dict[str, Any] | None:
        return next((event for event in self.all_events() if event["event"] == kind and event.get("name") == name and event["moment"] >= moment), None)

    def pids(self) -> dict[str, int]:
        """Roles and processes, as far as they live: supervisor, gate (the API server, which the gate is part of), engine-core, worker, media."""
        try:
            state = json.loads((self.home / "run/state.json").read_text())
            found = {"supervisor": self.supervisor_pid()}
        except (OSError, ValueError):
            return {}
        programs = {program["name"]: program["pid"] for program in state.get("programs", ()) if program["pid"]}
        found |= {role: programs[name] for role, name in (("gate", "engine0"), ("media", "media")) if name in programs}
        for pid in session_of(programs["engine0"]) if "engine0" in programs else ():
            title = command_line(pid)
            found |= {role: pid for role, begin in (("engine-core", b"VLLM::EngineCore"), ("worker", b"VLLM::Worker")) if title.startswith(begin)}
        return found

    def send(self, role: str, number: signal.Signals) -> float | None:
        """The moment at which a process of that role got a signal; None when there is none just now."""
        pid = self.pids().get(role)
        if pid is None:
            return None
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return None
        return time.monotonic()

    def engine_ended_by_itself(self) -> bool:
        """Its attempt before this one: did its server end well, or was it killed?"""
        return any("Application shutdown complete" in line for line in last_lines(self.home / "logs/service.log.1", 200))

    def audit_lines(self) -> Iterator[dict[str, Any] | str]:
        """All that are kept, the rotated files too; of one that is no JSON object where it is, and how it begins."""
        for path in sorted((self.home / "logs").glob("audit.jsonl*")):
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
                try:
                    value = json.loads(line)
                except ValueError:
                    value = None
                yield value if isinstance(value, dict) else f"{path.name} line {number}: {line[:80]!r}"

    def hangs(self) -> list[tuple[float, float]]:
        """When the supervisor took the engine for hung: it is then killed, whatever it was about to write."""
        return [(event["moment"], event["moment"]) for event in self.all_events() if event["event"] == "program-hangs" and event["name"] == "engine0"]

    def log_bytes(self) -> dict[str, int]:
        """By file; those of a rotated log are added up."""
        sizes: dict[str, int] = {}
        for folder in ("logs", "run"):
            for path in (self.home / folder).glob("*"):
                name = path.name.rstrip("0123456789").rstrip(".")
                try:
                    sizes[name] = sizes.get(name, 0) + path.stat().st_size
                except FileNotFoundError:
                    continue  # rotated away just now
        return sizes


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@contextmanager
def running(service: DemoService) -> Iterator[DemoService]:
    """Started, and in the end stopped: ``stop_problem`` has what the stop could not prove to be gone."""
    try:
        started = service.run("start", "--profile", "demo", "--detach")
        if started.returncode != 0:
            raise SystemExit(f"The demo service did not start: {started.stderr}")
        yield service
        stopped = service.run("stop")
        service.stop_problem = "" if stopped.returncode == 0 else stopped.stderr
    finally:
        service.close()


def agreed(audit: Callable[[], AuditAccount]) -> AuditAccount:
    """The account once it agrees, or as it is when the lines have had their time: the gate writes them after the answers, and late when the machine is busy."""
    deadline = time.monotonic() + LINES_SECONDS
    while not (found := audit()).agrees and time.monotonic() < deadline:
        time.sleep(1)
    return found


def wait_until(condition: Callable[[], Any], what: str, patience_seconds: float = PATIENCE_SECONDS) -> Any:
    """
    Raises:
        NotBackError: patience ended.
    """
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(POLL_SECONDS)
    raise NotBackError(f"in {patience_seconds:g} s it did not happen that {what}")
