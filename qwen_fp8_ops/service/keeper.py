"""Keeps the programs of a plan running: starts those that are due, judges their health, starts again those that died."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.engine.failures.rule import Diagnosis
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import clock, process
from qwen_fp8_ops.outside.process import Identity
from qwen_fp8_ops.plan.launch import LaunchPlan, Program
from qwen_fp8_ops.plan.situation import Situation
from qwen_fp8_ops.service import ladder, log_files
from qwen_fp8_ops.service.child import Child, Life
from qwen_fp8_ops.service.outcome import Failure
from qwen_fp8_ops.service.policy import GiveUp, after_death
from qwen_fp8_ops.service.post_mortem import PostMortem
from qwen_fp8_ops.service.record import Recorder
from qwen_fp8_ops.service.states import State
from qwen_fp8_ops.service.talk import Talk

FAILURES_UNTIL_DEGRADED = 2
LOG_CHECK_SECONDS = 10.0


class Keeper:
    """``failure`` says why the service cannot go on; ``ready_once``: everything was ready since the start or the last restart."""

    def __init__(
        self,
        plan: LaunchPlan,
        paths: RunPaths,
        me: Identity,
        recorder: Recorder,
        talk: Talk,
        *,
        key: str,
        pause: ladder.Pause,
        wake: Callable[[], None],
        post_mortem: PostMortem,
    ) -> None:
        self.plan = plan
        self.paths = paths
        self.me = me
        self.recorder = recorder
        self.talk = talk
        self.children = [Child(program) for program in plan.programs]
        self.failure: Failure | None = None
        self.ready_once = False
        self._key = key
        self._pause = pause
        self._wake = wake
        self._post_mortem = post_mortem
        self._next_log_check = 0.0

    @property
    def engines(self) -> list[Child]:
        return [child for child in self.children if child.program.is_engine]

    @property
    def load_name(self) -> str:
        """What an earlier start must have loaded to be comparable."""
        settings = self.plan.settings
        return f"{self.plan.model_path} tp{settings.tensor_parallel_size}{' eager' if settings.enforce_eager else ''}"

    def reuse_media(self) -> None:
        """Another run serves the media folder already: only ask it."""
        for child in self.children:
            if child.program.role == "media":
                child.reuse(self._key, self.plan.settings.probe_interval, self._wake)

    def take_up(self, plan: LaunchPlan) -> None:
        """Go over to another plan, whose unchanged programs run on; the others were ended before."""
        kept = {child.program.name: child for child in self.children if child.program in unchanged(self.plan, plan)}
        self.children = [kept.get(program.name) or Child(program) for program in plan.programs]
        self.plan, self.ready_once = plan, False

    # --- one round ----------------------------------------------------------------------------------------------------------

    def start_due(self) -> bool:
        """True when a program was started."""
        started = False
        for child in self.children:
            if child.life is Life.WAITING and clock.monotonic() >= child.start_at:
                try:
                    child.start(self.me.job_id, self._key, self.plan.settings.probe_interval, self._wake)
                except OpsError as error:
                    self.failure = Failure(State.FAILED, error)
                    break
                started = True
                self.recorder.event("program-started", name=child.program.name, pid=child.identity.pid if child.identity else None, attempt=child.starts)
        return started

    def observe(self) -> None:
        for child in self.children:
            if child.life in (Life.WAITING, Life.STOPPED):
                continue
            if child.popen is not None and not child.running:
                self._died(child)
                continue
            if child.life is Life.STARTING and child.program.is_engine:
                child.read_log()
            if child.prober:
                self._judge(child)
        if clock.monotonic() >= self._next_log_check:
            self._next_log_check = clock.monotonic() + LOG_CHECK_SECONDS
            logs = (*(Path(child.program.log) for child in self.children), self.paths.audit)
            self.recorder.attempt(lambda: log_files.cut_all(logs, self.plan.settings.log_max_mb * 1_000_000))

    # --- health -------------------------------------------------------------------------------------------------------------

    def _judge(self, child: Child) -> None:
        assert child.prober is not None
        health, now = child.prober.health, clock.monotonic()
        if child.prober.warming_up and child.life is Life.STARTING:
            child.startup.phase = "warm-up"
        if health.ok:
            child.metrics = health.metrics or child.metrics
            if child.life is not Life.READY:
                self._became_ready(child)
        elif child.life is Life.STARTING:
            if now - child.started > child.program.ready_seconds:
                self.failure = Failure.too_slow(child.program, child.startup.phase)
        elif health.failures >= FAILURES_UNTIL_DEGRADED:
            if child.life is Life.READY:
                child.life, child.failing_since, child.problem = Life.FAILING, now, health.problem
                self.recorder.event("program-failing", name=child.program.name, problem=health.problem)
            if child.reused:
                child.ended()
                child.reused, child.life = False, Life.WAITING  # whoever owned it ended it: start our own
            elif now - child.failing_since > self.plan.settings.hang_timeout:
                self._hangs(child)

    def _became_ready(self, child: Child) -> None:
        seconds = clock.monotonic() - child.started
        if child.program.is_engine and child.life is Life.STARTING:
            child.read_log()
            self.recorder.remember_load_seconds(self.load_name, seconds)
            situation = Situation(self.plan.settings, self.plan.model_path, self.paths, os.environ)
            self.recorder.attempt(lambda: situation.remember_start(child.startup.memory))
        child.life, child.was_ready, child.problem = Life.READY, True, ""
        self.recorder.event("program-ready", name=child.program.name, seconds=round(seconds, 2))

    # --- death --------------------------------------------------------------------------------------------------------------

    def _died(self, child: Child) -> None:
        assert child.popen is not None
        returncode, served = child.popen.returncode, child.life is not Life.STARTING
        self._forget_process(child)
        found = self._post_mortem.examine(child, returncode, self.plan, served=served)
        words = process.exit_in_words(returncode)
        self.recorder.event("program-died", name=child.program.name, how=words, code=found.code, cause=list(found.lines))
        self._start_again(child, found.after(words), found)

    def _hangs(self, child: Child) -> None:
        seconds = self.plan.settings.hang_timeout
        self.recorder.event("program-hangs", name=child.program.name, seconds=seconds, problem=child.problem)
        self._forget_process(child)
        self._start_again(child, f"it answered no probe for {seconds} s")

    def _forget_process(self, child: Child) -> None:
        """End what is left of the attempt: a killed API server leaves its engine and workers, which hold the GPUs."""
        child.ended()
        left = ladder.kill(child.members(), self._pause)
        if left:
            self.recorder.event("not-ended", name=child.program.name, pids=[member.pid for member in left])
        child.popen = None

    def _start_again(self, child: Child, why: str, diagnosis: Diagnosis | None = None) -> None:
        now = clock.monotonic()
        child.deaths.append(now)
        child.problem = why
        retryable = diagnosis is None or diagnosis.retryable
        decision = after_death(deaths=child.deaths, now=now, limit=self.plan.settings.restart_limit, was_ready=child.was_ready, retryable=retryable, cause=why)
        if isinstance(decision, GiveUp):
            child.life = Life.STOPPED
            self.recorder.event("program-given-up", name=child.program.name, why=decision.why)
            if self._needed(child):
                self.failure = Failure.of_program(decision, child.program, diagnosis)
            else:
                self.talk.say(f"{child.program.name} is not started again: {decision.why}", level="error")
            return
        child.life, child.start_at = Life.WAITING, now + decision.delay_seconds
        self.talk.say(f"{child.program.name} died ({why}); starting it again in {decision.delay_seconds:g} s.", level="warning")

    def _needed(self, child: Child) -> bool:
        """Can the service go on without it? A first start wants everything; later one engine is enough to serve."""
        return not self.ready_once or (child.program.is_engine and all(other.life is Life.STOPPED for other in self.engines))


def unchanged(old: LaunchPlan, new: LaunchPlan) -> list[Program]:
    """Programs, engines excepted, that a change of plan leaves running."""
    return [program for program in new.programs if not program.is_engine and program in old.programs]
