"""Asks one program over HTTP whether it serves, in a thread of its own, so that a hung program cannot hang the supervisor."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from qwen_fp8_ops.engine.metrics import EngineMetrics, parse_metrics
from qwen_fp8_ops.outside import clock, http, process
from qwen_fp8_ops.outside.process import Identity
from qwen_fp8_ops.plan.launch import Program

UNTIL_READY_SECONDS = 0.1
HEALTH_TIMEOUT_SECONDS = 5.0
WARM_UP_TIMEOUT_SECONDS = 600.0
"""The first request may compile kernels."""


@dataclass(frozen=True)
class Health:
    """The latest answer. ``failures`` counts those in a row."""

    ok: bool
    moment: float
    problem: str = ""
    failures: int = 0
    metrics: EngineMetrics | None = None


class Prober(threading.Thread):
    """Probes often until the first success, then every ``interval`` seconds. An engine has served when it has answered one token."""

    def __init__(self, program: Program, identity: Identity | None, *, key: str, interval: float, wake: Callable[[], None]) -> None:
        super().__init__(name=f"probe-{program.name}", daemon=True)
        self.program = program
        self.identity = identity
        self.health = Health(ok=False, moment=clock.monotonic(), problem="not answered yet")
        self.warming_up = False
        self._key = key
        self._interval = interval
        self._wake = wake
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        self._cancelled.set()

    def run(self) -> None:
        answered = False
        while not self._cancelled.is_set():
            problem = self._problem()
            if not problem and not answered:
                problem = self._first_problem()
                answered = not problem
            was_ok = self.health.ok
            failures = self.health.failures + 1 if problem else 0
            self.health = Health(not problem, clock.monotonic(), problem, failures, self._metrics() if answered else None)
            if self.health.ok != was_ok:
                self._wake()
            self._cancelled.wait(self._interval if answered and not problem else UNTIL_READY_SECONDS if not answered else 1.0)

    def _problem(self) -> str:
        answer = http.get(self.program.health_url, timeout=HEALTH_TIMEOUT_SECONDS)
        return "" if answer.ok else answer.problem or f"{self.program.health_url} answers {answer.status}"

    def _first_problem(self) -> str:
        """Health said yes for the first time: is it our process that answers there, and does it answer a request?"""
        if not self.program.is_engine:
            return ""
        self.warming_up = True
        self._wake()
        base = self.program.base_url
        answer = http.get(f"{base}/service", timeout=HEALTH_TIMEOUT_SECONDS, key=self._key).json()
        pid = answer["gate"]["pid"] if isinstance(answer, dict) and "gate" in answer else None
        if self.identity is None or pid not in [member.pid for member in process.session_members(self.identity)]:
            return f"another process answers at {base}"
        question = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        first = http.post(f"{self.program.url}/chat/completions", question, timeout=WARM_UP_TIMEOUT_SECONDS, key=self._key)
        # A refusal (4xx) is an answer too: the engine lives and says no.
        return "" if first.status is not None and first.status < 500 else f"the first request failed: {first.problem or first.status}"

    def _metrics(self) -> EngineMetrics | None:
        if not self.program.is_engine:
            return None
        answer = http.get(f"{self.program.base_url}/metrics", timeout=HEALTH_TIMEOUT_SECONDS, key=self._key)
        return parse_metrics(answer.body.decode(errors="replace")) if answer.ok else None
