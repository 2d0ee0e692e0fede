"""Finds out how one program is, in threads of their own, so that a hung program cannot hang the supervisor.

    alive       its process runs                  (the keeper sees that)
    serving     its health page answers 200       asked here, every PROBE_INTERVAL (a weight cache has none: all its ranks listen)
    answering   it answers a real request         asked by the ``Asker``, at the same pace, with all the patience it needs
    moving      its loop turns                    told by the counters on the engine's metrics page (``Pulse``)

A program that answers nothing but moves is busy. One that has work and neither answers nor moves is hung, whatever its health page says.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from qwen_fp8_ops.engine import weight_sockets
from qwen_fp8_ops.engine.metrics import EngineMetrics, parse_metrics
from qwen_fp8_ops.outside import clock, http, process
from qwen_fp8_ops.outside.process import Identity
from qwen_fp8_ops.plan.program import Program
from qwen_fp8_ops.service.asker import Asker
from qwen_fp8_ops.service.pulse import Pulse
from qwen_fp8_ops.service.questions import ask_picture, ask_token, ask_weights

UNTIL_READY_SECONDS = 0.1
AGAIN_SECONDS = 1.0
HEALTH_TIMEOUT_SECONDS = 5.0
WARM_UP_TIMEOUT_SECONDS = 600.0
"""The first request may compile kernels."""


@dataclass(frozen=True)
class Probing:
    """How programs are asked. ``picture_url``: the media server's own picture; ``with_pictures``: engines can be asked to look at it.
    ``patience_seconds``: for one real request; it is asked again after that.
    """

    key: str
    interval_seconds: float
    patience_seconds: float
    picture_url: str
    with_pictures: bool
    wake: Callable[[], None]

    def asker(self, program: Program, pulse: Pulse) -> Asker:
        if program.is_weight_cache:
            return Asker(program.name, pulse, partial(ask_weights, program, patience_seconds=self.patience_seconds))
        if not program.is_engine:
            return Asker(program.name, pulse, partial(ask_picture, self.picture_url, patience_seconds=self.patience_seconds))
        token = partial(ask_token, program, key=self.key, patience_seconds=self.patience_seconds)
        return Asker(program.name, pulse, token, partial(token, picture_url=self.picture_url) if self.with_pictures else None)


@dataclass(frozen=True)
class Health:
    """The latest answer of the health page. ``failures`` counts those in a row. ``metrics`` are without our own questions."""

    ok: bool
    moment: float
    problem: str = ""
    failures: int = 0
    metrics: EngineMetrics | None = None


class Prober(threading.Thread):
    """Probes often until the first success, then every PROBE_INTERVAL. An engine has served when it has answered one token."""

    def __init__(self, program: Program, identity: Identity | None, probing: Probing) -> None:
        super().__init__(name=f"probe-{program.name}", daemon=True)
        self.program = program
        self.identity = identity
        self.health = Health(ok=False, moment=clock.monotonic(), problem="not answered yet")
        self.pulse = Pulse()
        self.asker = probing.asker(program, self.pulse)
        self.warming_up = False
        self._probing = probing
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        self._cancelled.set()
        self.asker.cancel()

    def run(self) -> None:
        self.asker.start()
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
                self._probing.wake()
            if answered:
                self.asker.ask()  # right after the counters were read, which it then moves
            self._cancelled.wait(self._probing.interval_seconds if answered and not problem else UNTIL_READY_SECONDS if not answered else AGAIN_SECONDS)

    def _problem(self) -> str:
        if self.program.is_weight_cache:
            return weight_sockets.problem(Path(self.program.sockets), self.program.ranks)
        answer = http.get(self.program.health_url, timeout=HEALTH_TIMEOUT_SECONDS)
        return "" if answer.ok else answer.problem or f"{self.program.health_url} answers {answer.status}"

    def _first_problem(self) -> str:
        """Health said yes for the first time: is it our process that answers there, and does it answer a request?"""
        if not self.program.is_engine:
            return ""
        self.warming_up = True
        self._probing.wake()
        base = self.program.base_url
        answer = http.get(f"{base}/service", timeout=HEALTH_TIMEOUT_SECONDS, key=self._probing.key).json()
        pid = answer["gate"]["pid"] if isinstance(answer, dict) and "gate" in answer else None
        try:
            members = process.session_members(self.identity) if self.identity else []
        except OSError as error:
            return f"its processes cannot be looked at: {error.strerror}"
        if pid not in [member.pid for member in members]:
            return f"another process answers at {base}"
        first = ask_token(self.program, key=self._probing.key, patience_seconds=WARM_UP_TIMEOUT_SECONDS)
        return "" if first.answered else first.problem

    def _metrics(self) -> EngineMetrics | None:
        if not self.program.is_engine:
            return None
        answer = http.get(f"{self.program.base_url}/metrics", timeout=HEALTH_TIMEOUT_SECONDS, key=self._probing.key)
        if not answer.ok:
            return None
        found = parse_metrics(answer.body.decode(errors="replace"))
        self.pulse.read(found, clock.monotonic())
        return self._without_ours(found)

    def _without_ours(self, found: EngineMetrics) -> EngineMetrics:
        """What users have the engine do. A question of ours that is still out came last: while anything waits, it does."""
        ours = self.asker.is_waiting
        waiting = found.waiting - (ours and found.waiting > 0)
        return replace(
            found,
            waiting=waiting,
            running=found.running - (ours and waiting == found.waiting and found.running > 0),
            prompt_tokens=found.prompt_tokens - self.asker.prompt_tokens,
            generation_tokens=found.generation_tokens - self.asker.generation_tokens,
        )
