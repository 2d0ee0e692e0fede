"""Keeps the programs of a plan running: starts those that are due, judges their health, starts again those that died.

The weight cache is one of them, with rules of its own. An engine that has mapped weights goes on when the cache dies: the driver keeps
memory as long as anybody maps it (NVIDIA promises nothing of the kind, so the service is degraded and says so). A second cache beside
such an engine would take the weights' memory twice, so it waits until the engine ends, and the next engine waits for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.engine.failures.rule import Diagnosis
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import clock, process
from qwen_fp8_ops.outside.media_health import PICTURE_PATH
from qwen_fp8_ops.outside.process import Identity
from qwen_fp8_ops.plan.launch import LaunchPlan
from qwen_fp8_ops.plan.situation import Situation
from qwen_fp8_ops.service import ladder, log_files
from qwen_fp8_ops.service.child import Child, Life
from qwen_fp8_ops.service.crashes import CrashBook
from qwen_fp8_ops.service.crew import Crew
from qwen_fp8_ops.service.outcome import Failure
from qwen_fp8_ops.service.policy import GiveUp, after_death
from qwen_fp8_ops.service.post_mortem import PostMortem
from qwen_fp8_ops.service.prober import Probing
from qwen_fp8_ops.service.record import Recorder
from qwen_fp8_ops.service.stacks import dump
from qwen_fp8_ops.service.states import State
from qwen_fp8_ops.service.talk import Talk

FAILURES_UNTIL_DEGRADED = 2
LOG_CHECK_SECONDS = 10.0
ABSENCE_SECONDS = 2.0
"""A round takes a fraction of a second, but where a program is just ended."""
DYING_SECONDS = 60.0
"""From the death of the engine's core, at which the API server tells its clients so, to the end of the API server itself."""
CACHE_TO_BLAME = frozenset({"weight-cache-lost", "weight-cache-mismatch"})
"""Causes of an engine's death that another start of the engine alone would die of again."""
SILENT = "it has work, and for half of HANG_TIMEOUT nothing of it has moved"


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
        self.crew = Crew(plan)
        self.paths = paths
        self.me = me
        self.recorder = recorder
        self.talk = talk
        self.failure: Failure | None = None
        self.ready_once = False
        self._key = key
        self._pause = pause
        self._wake = wake
        self._crashes = CrashBook(paths.poison, paths.in_flight)
        self._post_mortem = post_mortem
        self._next_log_check = 0.0
        self._looked = clock.monotonic()

    @property
    def plan(self) -> LaunchPlan:
        return self.crew.plan

    @property
    def children(self) -> list[Child]:
        return self.crew.children

    def begin(self) -> None:
        """Before the first program starts."""
        self._crashes.begin()

    def reuse_media(self) -> None:
        """Another run serves the media folder already: only ask it."""
        for child in self.children:
            if child.program.role == "media":
                child.reuse(self._probing())

    def _probing(self) -> Probing:
        settings = self.plan.settings
        return Probing(
            key=self._key,
            interval_seconds=settings.probe_interval,
            patience_seconds=settings.hang_timeout,
            picture_url=self.plan.media.url + PICTURE_PATH,
            with_pictures=settings.max_images > 0,
            wake=self._wake,
        )

    def take_up(self, plan: LaunchPlan, *, keep_weights: bool) -> None:
        """Go over to another plan, with no failure yet. No engine outlives that, so nothing is in flight."""
        self._crashes.begin()
        self.crew.take_up(plan, keep_weights=keep_weights)
        self.ready_once, self.failure = False, None

    # --- one round ----------------------------------------------------------------------------------------------------------

    def start_due(self) -> bool:
        """True when a program was started."""
        started = False
        for child in self.children:
            if child.life is Life.WAITING and clock.monotonic() >= child.start_at and self.crew.may_start(child):
                try:
                    child.start(self.me.job_id, self._probing(), alone=self.crew.is_alone(child))
                except OpsError as error:
                    if child.was_ready:
                        self._start_again(child, error.message)  # descriptors, memory, processes: there may be some again
                        continue
                    self.failure = Failure(State.FAILED, error)
                    break
                started = True
                child.expected_seconds = self.recorder.load_seconds(self._load_name(child)) if child.program.loads_weights else None
                self.recorder.event("program-started", name=child.program.name, pid=child.identity.pid if child.identity else None, attempt=child.starts)
                if child.unlogged:
                    self.talk.say(f"{child.program.name} runs without a log: {child.unlogged}", level="warning")
        return started

    def observe(self) -> None:
        self._mind_absence()
        for child in self.children:
            if child.life in (Life.WAITING, Life.STOPPED):
                continue
            if child.popen is not None and not child.running:
                self._died(child)
                continue
            if child.life is Life.STARTING and child.program.loads_weights:
                child.read_log()
            if child.prober:
                self._judge(child)
        if clock.monotonic() >= self._next_log_check:
            self._next_log_check = clock.monotonic() + LOG_CHECK_SECONDS
            held = (*(Path(child.program.log) for child in self.children), self.paths.supervisor_log)
            reopened = (self.paths.audit, self.paths.events)
            self.recorder.attempt(lambda: log_files.cut_all(held, reopened, self.plan.settings.log_max_mb * 1_000_000))

    def _mind_absence(self) -> None:
        before, self._looked = self._looked, clock.monotonic()
        if self._looked - before > ABSENCE_SECONDS:
            for child in self.children:
                if child.prober:
                    child.prober.pulse.missed(self._looked - before)

    # --- health -------------------------------------------------------------------------------------------------------------

    def _judge(self, child: Child) -> None:
        assert child.prober is not None
        health, now = child.prober.health, clock.monotonic()
        if child.life is Life.STARTING:
            if child.prober.warming_up:
                child.startup.phase = "warm-up"
            if health.ok:
                self._became_ready(child)
            elif now - child.started > child.program.ready_seconds:
                self.failure = Failure.too_slow(child.program, child.startup.phase)
            return
        child.metrics = health.metrics or child.metrics
        silent = child.prober.pulse.silent_seconds(now)
        if health.ok:
            if child.life is Life.FAILING:
                self._became_ready(child)
            self._mind_ailment(child, child.prober.asker.problem or (SILENT if silent > self.plan.settings.hang_timeout / 2 else ""))
        elif health.failures >= FAILURES_UNTIL_DEGRADED:
            if child.life is Life.READY:
                child.life, child.problem = Life.FAILING, health.problem
                self.recorder.event("program-failing", name=child.program.name, problem=health.problem)
            if child.reused:
                child.ended()
                child.reused, child.life = False, Life.WAITING  # whoever owned it ended it: start our own
                return
            if child.program.is_weight_cache:
                self._forget_process(child)  # what is left of it is of no use
                self._start_again(child, health.problem)
                return
        if silent > self.plan.settings.hang_timeout and not child.reused:
            self._hangs(child)

    def _mind_ailment(self, child: Child, problem: str) -> None:
        """It serves, and something is wrong with it all the same: the service is degraded by that."""
        if problem != child.problem:
            child.problem = problem
            if problem:
                self.recorder.event("program-failing", name=child.program.name, problem=problem)

    def _became_ready(self, child: Child) -> None:
        seconds = clock.monotonic() - child.started
        if child.program.loads_weights and child.life is Life.STARTING:
            child.read_log()
            self.recorder.remember_load_seconds(self._load_name(child), seconds)
        if child.program.is_engine and child.life is Life.STARTING:
            situation = Situation(self.plan.settings, self.plan.model_path, self.paths, os.environ)
            self.recorder.attempt(lambda: situation.remember_start(child.startup.memory))
        child.family = frozenset(member.pid for member in child.members())
        child.life, child.was_ready, child.problem = Life.READY, True, ""
        self.recorder.event("program-ready", name=child.program.name, seconds=round(seconds, 2))

    def _load_name(self, child: Child) -> str:
        """What an earlier start must have loaded to be comparable."""
        settings, program = self.plan.settings, child.program
        how = " for the weight cache" if program.is_weight_cache else " mapped" if program.needs and not child.alone else ""
        return f"{self.plan.model_path} tp{settings.tensor_parallel_size}{' eager' if settings.enforce_eager else ''}{how}"

    # --- death --------------------------------------------------------------------------------------------------------------

    def _died(self, child: Child) -> None:
        assert child.popen is not None
        returncode, served = child.popen.returncode, child.life is not Life.STARTING
        self._forget_process(child)
        found = self._post_mortem.examine(child, returncode, self.plan, served=served)
        words = process.exit_in_words(returncode)
        self._crashed(child, words, DYING_SECONDS, served=served)
        self.recorder.event("program-died", name=child.program.name, how=words, code=found.code, cause=list(found.lines))
        if found.code in CACHE_TO_BLAME and (cache := self.crew.weight_cache) and cache.running:
            self._forget_process(cache)
            self._start_again(cache, "an engine could not map its weights")
        self._start_again(child, found.after(words), found)

    def _hangs(self, child: Child) -> None:
        """It has work, and for HANG_TIMEOUT neither its counters moved nor a question was answered: see where it hangs, end it."""
        seconds, stacks = self.plan.settings.hang_timeout, self.paths.stacks(child.program.name)
        self.recorder.attempt(lambda: dump(child.members(), Path(child.program.log), stacks, self._pause))
        self.recorder.event("program-hangs", name=child.program.name, seconds=seconds, problem=child.problem, stacks=str(stacks))
        self._forget_process(child)
        self._crashed(child, "it hung", seconds + DYING_SECONDS, served=True)
        self._start_again(child, f"it gave no sign of life for {seconds} s; its stacks are in {stacks}")

    def _crashed(self, child: Child, how: str, seconds: float, *, served: bool) -> None:
        """Note which requests it had or failed within these seconds; one that ran at the crash before, too, is refused from now on."""
        if not child.program.is_engine or child.identity is None:
            return
        session, attempt = child.identity.pid, self.recorder.attempt
        for refused in self._crashes.note(child.program.name, session, how, served=served, seconds=seconds, attempt=attempt):
            self.recorder.event("request-refused", **refused.as_json())
            self.talk.say(f"A request that ran at two crashes is refused until {refused.until}: {self.paths.poison} has it as {refused.id}.", level="warning")

    def _forget_process(self, child: Child) -> None:
        """End what is left of the attempt: a killed API server leaves its engine and workers, which hold the GPUs."""
        child.ended()
        left = ladder.kill(child.members(), self._pause)
        if left:
            self.recorder.event("not-ended", name=child.program.name, pids=[member.pid for member in left])
        child.remove_traces()

    def _start_again(self, child: Child, why: str, diagnosis: Diagnosis | None = None) -> None:
        now = clock.monotonic()
        child.popen = None
        child.deaths.append(now)
        child.problem = why
        if child.program.is_weight_cache:
            self._end_engines_without_weights()
        retryable = diagnosis is None or diagnosis.retryable
        decision = after_death(deaths=child.deaths, now=now, limit=self.plan.settings.restart_limit, was_ready=child.was_ready, retryable=retryable, cause=why)
        if isinstance(decision, GiveUp):
            child.life = Life.STOPPED
            self.recorder.event("program-given-up", name=child.program.name, why=decision.why)
            if not (self.ready_once and self.crew.can_do_without(child)):
                self.failure = Failure.of_program(decision, child.program, diagnosis)
            else:
                self.talk.say(f"{child.program.name} is not started again: {decision.why}", level="error")
            return
        child.life, child.start_at = Life.WAITING, now + decision.delay_seconds
        when = f"in {decision.delay_seconds:g} s" if self.crew.may_start(child) else "when the engine, which keeps what it has mapped, starts the next time"
        self.talk.say(f"{child.program.name} died ({why}); starting it again {when}.", level="warning")

    def _end_engines_without_weights(self) -> None:
        """An engine that was just starting has perhaps not mapped all of them; one that serves has. Before the service was ready, nobody
        is served yet, and a degraded beginning would be none.
        """
        for engine in self.crew.engines:
            if engine.running and not engine.alone and (engine.life is Life.STARTING or not self.ready_once):
                self._forget_process(engine)
                engine.popen, engine.life = None, Life.WAITING
