"""A run whose state.json the real supervisor's own code wrote, without any program of it being started."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, cast

from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.engine.metrics import EngineMetrics
from qwen_fp8_ops.outside import clock, process
from qwen_fp8_ops.plan.launch import make_plan
from qwen_fp8_ops.service.child import Child, Life
from qwen_fp8_ops.service.outcome import Outcome
from qwen_fp8_ops.service.record import Recorder
from qwen_fp8_ops.service.states import State
from qwen_fp8_ops.service.supervisor import Supervisor
from qwen_fp8_ops.slurm.allocation import Allocation

METRICS = EngineMetrics(2, 1, 0.25, 0, 1000.0, 500.0, 0.12, 0.03)
WORKER_TITLE = "VLLM::Worker_TP1_EP1"
WAYS: dict[State, tuple[State, ...]] = {
    State.STARTING: (State.PREFLIGHT, State.STARTING),
    State.READY: (State.PREFLIGHT, State.STARTING, State.READY),
    State.DEGRADED: (State.PREFLIGHT, State.STARTING, State.DEGRADED),
    State.DRAINING: (State.PREFLIGHT, State.STARTING, State.READY, State.DRAINING),
    State.STOPPING: (State.PREFLIGHT, State.STARTING, State.STOPPING),
    State.STOPPED: (State.PREFLIGHT, State.STARTING, State.STOPPING, State.STOPPED),
    State.FAILED: (State.PREFLIGHT, State.STARTING, State.STOPPING, State.FAILED),
    State.GAVE_UP: (State.PREFLIGHT, State.STARTING, State.STOPPING, State.GAVE_UP),
    State.PREFLIGHT: (State.PREFLIGHT,),
}


class NoTalk:
    def say(self, text: str, level: str = "info") -> None: ...

    def progress(self, text: str, fraction: float | None = None) -> None: ...

    def update(self, state: State, snapshot: dict[str, Any]) -> None: ...

    def ready(self, snapshot: dict[str, Any], seconds: float) -> None: ...

    def close(self) -> None: ...


class Run:
    """``engine`` and ``worker`` are living processes in a session of their own, as an engine's are."""

    def __init__(self, home: Path, leader: subprocess.Popen[str], worker: int) -> None:
        self.paths = RunPaths(home)
        self.paths.run.mkdir()
        me, engine = process.identify(os.getpid(), "4711"), process.identify(leader.pid)
        assert me
        assert engine
        self.me, self.engine, self.worker, self._popen = me, engine, worker, leader
        self.plan = make_plan(load(profiles=["demo"]), self.paths)
        self.recorder = Recorder(self.paths, NoTalk().say)
        allocation = Allocation("4711", "gpu", "node07", 8, "2031-01-01T00:00:00.000Z")
        self.supervisor = Supervisor(self.plan, self.paths, self.me, self.recorder, NoTalk(), key="k", allocation=allocation)

    def child(self, role: str) -> Child:
        return next(child for child in self.supervisor.children if child.program.role == role)

    def record(self, state: State, outcome: Outcome | None = None, *, metrics: EngineMetrics | None = METRICS) -> None:
        """Have the run come to this state and write it down."""
        engine, media = self.child("engine"), self.child("media")
        engine.popen = cast("subprocess.Popen[bytes]", self._popen)
        engine.identity, engine.starts, engine.started, engine.metrics = self.engine, 1, clock.monotonic() - 20, metrics
        serves = state in (State.READY, State.DEGRADED, State.DRAINING)
        engine.life = Life.READY if serves else Life.STARTING
        media.life = Life.FAILING if state is State.DEGRADED else Life.READY
        media.problem = "no good answer" if state is State.DEGRADED else ""
        for line in () if state is State.PREFLIGHT else LOG if serves else LOG[:1]:
            engine.startup.feed(line)
        for step in WAYS[state]:
            self.recorder.move(step)
        self.recorder.write(self.supervisor.snapshot(outcome))


LOG = (
    "Loading safetensors checkpoint shards:  12% Completed | 3/24 [00:00<00:00,  1.00it/s]",
    "(Worker_TP0 pid=1) INFO 11-21 10:00:00 [x.py:1] Model loading took 28.98 GiB memory and 63.1 seconds",
    "(Worker_TP0 pid=1) INFO 11-21 10:00:00 [x.py:1] Available KV cache memory: 36.29 GiB",
    "(EngineCore pid=1) INFO 11-21 10:00:00 [x.py:1] GPU KV cache size: 809,504 tokens, Maximum concurrency for 32,768 tokens per request: 24.70x",
)
