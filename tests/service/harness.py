"""A service of stand-in programs in a folder of its own, run by the real supervisor."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.outside import lock, process
from qwen_fp8_ops.outside.process import Identity, session_members
from qwen_fp8_ops.plan.launch import LaunchPlan, make_plan
from qwen_fp8_ops.report.status import collect
from qwen_fp8_ops.service import scratch
from tests.ports import free_port
from tests.waiting import wait_for
from tests.weights.shards import make_checkpoint

HERE = Path(__file__).parent
PATIENCE_SECONDS = 60.0


class StandInService:
    def __init__(self, home: Path, **settings: Any) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.paths = RunPaths(home)
        self.behaviour_file = home / "behaviour.json"
        self.behave()
        make_checkpoint(home / "model", 1)
        self.settings = {
            "MODEL_ID": "stand/in",
            "MODEL_PATH": str(home / "model"),
            "PORT": free_port(),
            "MEDIA_PORT": free_port(),
            "PROBE_INTERVAL": 1,
            **settings,
        }
        self.engine_script = HERE / "standin_engine.py"
        self.process: subprocess.Popen[str] | None = None
        self.starters: list[subprocess.Popen[str]] = []

    def behave(self, **behaviour: Any) -> None:
        temporary = self.behaviour_file.with_suffix(".new")
        temporary.write_text(json.dumps(behaviour))
        temporary.rename(self.behaviour_file)

    def plan(self, **settings: Any) -> LaunchPlan:
        texts = [f"{key}={value}" for key, value in {**self.settings, **settings}.items()]
        plan = make_plan(load(profiles=["demo"], overrides=texts), self.paths)
        argv = (sys.executable, str(self.engine_script), str(plan.settings.port), str(self.behaviour_file))
        return replace(plan, programs=tuple(replace(program, argv=argv) if program.is_engine else program for program in plan.programs))

    def start(self, **settings: Any) -> subprocess.Popen[str]:
        self.process = _spawn(self.command(**settings))
        return self.process

    def command(self, **settings: Any) -> list[str]:
        """The supervisor's."""
        plan_file = self.paths.home / "plan-of-the-test.json"
        plan_file.write_text(json.dumps(self.plan(**settings).as_json()))
        return [sys.executable, str(HERE / "run_plan.py"), str(plan_file), str(self.paths.home)]

    def start_detached(self, command: list[str]) -> subprocess.Popen[str]:
        """A starter that runs the command in the background and follows it."""
        starter = _spawn([sys.executable, str(HERE / "start_detached.py"), str(self.paths.home), *command])
        self.starters.append(starter)
        return starter

    def started(self, **settings: Any) -> StandInService:
        self.start(**settings)
        self.wait_state("ready")
        return self

    def status(self) -> dict[str, Any]:
        return collect(self.paths)

    def wait_state(self, *states: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            status = self.status()
            if self.process and self.process.poll() is not None and status["state"] not in states:
                raise AssertionError(f"the supervisor ended ({self.process.returncode}) in state {status['state']}: {self.said()}")
            return status if status["state"] in states else None

        found: dict[str, Any] = wait_for(look, f"the service is {' or '.join(states)}")
        return found

    def said(self) -> str:
        assert self.process and self.process.stderr
        return self.process.stderr.read()

    def ended(self) -> tuple[int, str]:
        """Exit code and what it said, once it has ended."""
        assert self.process
        _, said = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, said

    def signal(self, number: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(number)

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.paths.events.read_text().splitlines()] if self.paths.events.exists() else []
        return [event for event in found if kind in (None, event["event"])]

    def readings(self) -> int:
        """How often the supervisor has read the engine's metrics."""
        return int(self.told()["readings"])

    def wait_in_flight(self, count: int) -> None:
        wait_for(lambda: self.told()["gate"]["in_flight"] == count, f"{count} requests run")

    def told(self) -> Any:
        """What the engine's /service says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.settings['PORT']}/service", timeout=30) as answer:
            return json.loads(answer.read())

    def moves(self) -> list[str]:
        return [event["to"] for event in self.events("state")]

    def pid(self, name: str) -> int:
        pid = self._pid_when_ready(name)
        assert pid, "the service is not ready"
        return pid

    def replaced(self, name: str, old: int) -> bool:
        """Is the service ready, with another process for the program?"""
        return self._pid_when_ready(name) not in (None, old)

    def _pid_when_ready(self, name: str) -> int | None:
        recorded = json.loads(self.paths.state.read_text())
        pids = {program["name"]: program["pid"] for program in recorded["programs"]}
        return pids[name] if recorded["state"] in ("ready", "degraded") else None

    def living(self) -> list[int]:
        """Every process of the recorded programs that still runs."""
        recorded = json.loads(self.paths.state.read_text()) if self.paths.state.exists() else {}
        leaders = [Identity.from_json(program["identity"]) for program in recorded.get("programs", [])]
        return [member.pid for leader in leaders if leader for member in session_members(leader)]

    def close(self) -> None:
        """End whatever a failed test left."""
        for starter in self.starters:
            starter.kill()
            starter.communicate()
        detached = lock.holder(self.paths.lock)
        if detached and not (self.process and detached.pid == self.process.pid):
            process.send(detached, signal.SIGKILL)
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
        for pid in self.living():
            with contextlib.suppress(ProcessLookupError):  # it ended with the one before
                os.kill(pid, signal.SIGKILL)
        scratch.clear(self.paths.run)
        if self.process and self.process.stderr:
            self.process.stderr.close()


def _spawn(command: list[str]) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(HERE.parent.parent)}
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env)
