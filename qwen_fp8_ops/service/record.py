"""The only writer of a run's state: state.json for readers, events.jsonl for history, gate.json for the gate.

A record that cannot be written (disk full) never ends the service: the problem is told once, and the next tick tries again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.gate.config import GateConfig
from qwen_fp8_ops.outside import clock
from qwen_fp8_ops.outside.files import append_json, read_json, write_json
from qwen_fp8_ops.service.states import State, check_move

SCHEMA = 1


class Recorder:
    def __init__(self, paths: RunPaths, say: Callable[[str, str], None]) -> None:
        self.paths = paths
        self.state = State.STOPPED
        self.since = clock.now()
        self.refused = ""
        self._say = say
        self._written = ""

    def move(self, new: State, why: str = "") -> None:
        """The one place where the service changes its state."""
        if new is self.state:
            return
        check_move(self.state, new)
        self.event("state", **{"from": self.state.value, "to": new.value, "why": why})
        self.state, self.since = new, clock.now()

    def event(self, kind: str, **facts: Any) -> None:
        self.attempt(lambda: append_json(self.paths.events, {"time": clock.now(), "event": kind, **facts}))

    def write(self, snapshot: dict[str, Any]) -> None:
        """Replace state.json when something in it changed."""
        value = {"schema": SCHEMA, "state": self.state.value, "since": self.since, **snapshot}
        text = json.dumps(value)
        if text != self._written and self.attempt(lambda: write_json(self.paths.state, {**value, "written_at": clock.now()})):
            self._written = text

    def gate(self, config: GateConfig) -> None:
        self.attempt(lambda: write_json(self.paths.gate, config.as_json(), mode=0o600))

    def load_seconds(self, what: str) -> float | None:
        """How long the last start of ``what`` took."""
        try:
            times = read_json(self.paths.load_times)
        except OpsError:
            return None  # only an estimate hangs on it
        seconds = times.get(what) if isinstance(times, dict) else None
        return seconds if isinstance(seconds, (int, float)) else None

    def remember_load_seconds(self, what: str, seconds: float) -> None:
        try:
            times = read_json(self.paths.load_times)
        except OpsError:
            times = None
        kept = {**(times if isinstance(times, dict) else {}), what: round(seconds, 1)}
        self.attempt(lambda: write_json(self.paths.load_times, kept))

    def attempt(self, write: Callable[[], None]) -> bool:
        """Write; a refusal is told once and is no reason to end. True when it was written."""
        try:
            write()
        except OpsError as error:
            self.tell_once(error.message)
            return False
        self.refused = ""
        return True

    def tell_once(self, problem: str) -> None:
        """Say it, if it is not what was said last; also while nothing can be written."""
        if problem != self.refused:
            self._say(problem, "warning")
        self.refused = problem
