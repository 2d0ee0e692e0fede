"""The supervisor: owns the programs of one plan from their start to the proof that they are gone.

One thread, one loop, a fixed order: signals, deaths, health, decisions, record. Signal handlers only note the signal; probes run in
threads of their own and only leave their latest answer. Everything that the loop does returns quickly, but for the two waits of
a stop (drain, end), which go on reaping and listening to signals through ``pause``.
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.engine.root_cause import find_root_cause
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import clock, process
from qwen_fp8_ops.outside.files import read_json
from qwen_fp8_ops.outside.process import Identity
from qwen_fp8_ops.plan.launch import LaunchPlan
from qwen_fp8_ops.plan.situation import Situation, expected_memory
from qwen_fp8_ops.service import ladder, log_files
from qwen_fp8_ops.service.child import Child, Life
from qwen_fp8_ops.service.devices import confined
from qwen_fp8_ops.service.drain import requests_running
from qwen_fp8_ops.service.endpoint import publish
from qwen_fp8_ops.service.gate_rules import gate_rules
from qwen_fp8_ops.service.outcome import Failure, Outcome, find_leftovers, gpu_memory_used
from qwen_fp8_ops.service.policy import GiveUp, after_death
from qwen_fp8_ops.service.record import Recorder
from qwen_fp8_ops.service.snapshot import Rates, children_facts
from qwen_fp8_ops.service.states import ENDED, SERVING, State
from qwen_fp8_ops.service.talk import Talk
from qwen_fp8_ops.service.wakeups import RESTART_SIGNAL, WALL_TIME_SIGNAL, Wakeups, reap
from qwen_fp8_ops.service.wall_time import WallTime
from qwen_fp8_ops.slurm.allocation import Allocation
from qwen_fp8_ops.slurm.script import notice_seconds

TICK_SECONDS = 0.25
FAILURES_UNTIL_DEGRADED = 2
LOG_LINES_READ = 4000
LOG_CHECK_SECONDS = 10.0


class Supervisor:
    """Made in the state ``preflight``; ``run`` ends in stopped, failed or gave-up."""

    def __init__(self, plan: LaunchPlan, paths: RunPaths, me: Identity, recorder: Recorder, talk: Talk, *, key: str, allocation: Allocation | None) -> None:
        self.plan = plan
        self.paths = paths
        self.me = me
        self.recorder = recorder
        self.talk = talk
        self.key = key
        self.allocation = allocation
        self.wall_time = WallTime(allocation, notice_seconds=notice_seconds(plan.settings))
        self.end_is_near = False
        self.children = [Child(program) for program in plan.programs]
        self.failure: Failure | None = None
        self.stop_asked = 0
        self.restart_asked = False
        self.expected_seconds = recorder.load_seconds(self._load_name)
        self.began = clock.monotonic()
        self.started_at = clock.now()
        self.ready_once = False
        self.ready_seconds: float | None = None
        self.generation = 0
        self.rates = Rates()
        self.gpu_memory_before = gpu_memory_used(plan)
        self.planned_memory = expected_memory(plan, paths, os.environ)
        self.next_log_check = 0.0
        self.wakeups = Wakeups()

    # --- the loop -----------------------------------------------------------------------------------------------------------

    def run(self, *, reuse_media: bool) -> Outcome:
        """Start everything, watch until asked to stop or until nothing helps, then stop everything and prove it."""
        self.wakeups.listen()
        self.wall_time.watch()
        self.recorder.move(State.STARTING)
        self._write_gate(draining=False)
        for child in self.children:
            if reuse_media and child.program.role == "media":
                child.reuse(self.key, self.plan.settings.probe_interval, self.wakeups.wake)
        try:
            self._watch()
            return self._shut_down()
        finally:
            if self.recorder.state not in ENDED:
                self._abandon()

    def _watch(self) -> None:
        while not self.stop_asked and not self.failure and not self.end_is_near:
            self._mind_the_end()
            self._start_due()
            self._observe()
            self._settle()
            self._write()
            self.pause(TICK_SECONDS)
            if self.restart_asked:
                self._restart_engines()

    def pause(self, seconds: float) -> bool:
        """Wait until something happens, then take signals and reap. True when a stop is to be forced."""
        self.wakeups.wait(seconds)
        for number in self.wakeups.signals():
            if number == RESTART_SIGNAL:
                self.restart_asked = True
            elif number == WALL_TIME_SIGNAL:
                self._end_comes(number.name)
            else:
                self.stop_asked += 1
                self.talk.say(f"{number.name}: stopping" + (" at once." if self.stop_asked > 1 else ". Once more to stop at once."))
                if number == signal.SIGTERM:
                    self.wall_time.kill_follows()
        reap(child.popen for child in self.children if child.popen and child.running)
        return self.stop_asked > 1 or self.wall_time.is_up

    def _mind_the_end(self) -> None:
        ends_at = self.wall_time.ends_at
        if self.allocation and self.allocation.on_node and ends_at != self.allocation.ends_at:
            self.recorder.event("end-moved", ends_at=ends_at)
            self.allocation = replace(self.allocation, ends_at=ends_at)
            self.recorder.attempt(lambda: publish(self.plan, self.paths, self.me, self.allocation))
            self._write_gate(draining=False)
        if self.wall_time.is_near:
            self._end_comes("by the clock")

    def _end_comes(self, how: str) -> None:
        if not self.end_is_near:
            self.end_is_near = True
            self.recorder.event("wall-time-near", how=how, ends_at=self.wall_time.ends_at, then=self.plan.settings.slurm_at_end)
            self.talk.say(f"The wall time is near ({how}): no new request is admitted, then the service stops.", level="warning")

    # --- starting -----------------------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        for child in self.children:
            if child.life is Life.WAITING and clock.monotonic() >= child.start_at:
                try:
                    child.start(self.me.job_id, self.key, self.plan.settings.probe_interval, self.wakeups.wake)
                except OpsError as error:
                    self.failure = Failure(State.FAILED, error)
                    return
                self.recorder.event("program-started", name=child.program.name, pid=child.identity.pid if child.identity else None, attempt=child.starts)
                self._write()

    def _restart_engines(self) -> None:
        """Take up the next plan, if there is one; drain and end the engines; leave every other program that stays the same."""
        self.restart_asked = False
        plan = self._next_plan()
        unchanged = {program.name: program for program in plan.programs if not program.is_engine and program in self.plan.programs}
        self.talk.say("Restarting the engine.")
        self._drain()
        for child in self.children:
            if child.program.name not in unchanged:
                self._end(child)
        if self.stop_asked:
            return
        self.plan, self.planned_memory = plan, expected_memory(plan, self.paths, os.environ)
        kept = {child.program.name: child for child in self.children if child.program.name in unchanged}
        self.children = [kept.get(program.name) or Child(program) for program in plan.programs]
        self.began, self.ready_once, self.generation = clock.monotonic(), False, self.generation + 1
        self.expected_seconds = self.recorder.load_seconds(self._load_name)
        self.recorder.attempt(lambda: publish(plan, self.paths, self.me, self.allocation))
        self._write_gate(draining=False)
        self.recorder.move(State.STARTING, "restart")

    def _next_plan(self) -> LaunchPlan:
        try:
            value = read_json(self.paths.next_plan)
            self.paths.next_plan.unlink(missing_ok=True)
            return confined(LaunchPlan.from_json(value), self.allocation, os.environ) if value else self.plan
        except (OpsError, OSError) as error:
            self.talk.say(f"The new settings are not taken up: {error}", level="warning")
            return self.plan

    # --- watching -----------------------------------------------------------------------------------------------------------

    def _observe(self) -> None:
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
        if clock.monotonic() >= self.next_log_check:
            self.next_log_check = clock.monotonic() + LOG_CHECK_SECONDS
            logs = (*(Path(child.program.log) for child in self.children), self.paths.audit)
            self.recorder.attempt(lambda: log_files.cut_all(logs, self.plan.settings.log_max_mb * 1_000_000))

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
            self.recorder.remember_load_seconds(self._load_name, seconds)
            situation = Situation(self.plan.settings, self.plan.model_path, self.paths, os.environ)
            self.recorder.attempt(lambda: situation.remember_start(child.startup.memory))
        child.life, child.was_ready, child.problem = Life.READY, True, ""
        self.recorder.event("program-ready", name=child.program.name, seconds=round(seconds, 2))

    @property
    def _load_name(self) -> str:
        """What an earlier start must have loaded to be comparable."""
        settings = self.plan.settings
        return f"{self.plan.model_path} tp{settings.tensor_parallel_size}{' eager' if settings.enforce_eager else ''}"

    def _died(self, child: Child) -> None:
        assert child.popen is not None
        killed, words = child.popen.returncode < 0, process.exit_in_words(child.popen.returncode)
        lines = log_files.last_lines(Path(child.program.log), LOG_LINES_READ)
        cause = find_root_cause(lines)
        self._forget_process(child)
        why = words if killed else f"{words}: {cause.headline}"
        self.recorder.event("program-died", name=child.program.name, how=words, cause=[] if killed else list(cause.lines))
        self._start_again(child, why, retryable=killed or cause.retryable, evidence=() if killed else cause.lines)

    def _hangs(self, child: Child) -> None:
        seconds = self.plan.settings.hang_timeout
        self.recorder.event("program-hangs", name=child.program.name, seconds=seconds, problem=child.problem)
        self._forget_process(child)
        self._start_again(child, f"it answered no probe for {seconds} s", retryable=True, evidence=())

    def _forget_process(self, child: Child) -> None:
        """End what is left of the attempt: a killed API server leaves its engine and workers, which hold the GPUs."""
        child.ended()
        left = ladder.kill(child.members(), self.pause)
        if left:
            self.recorder.event("not-ended", name=child.program.name, pids=[member.pid for member in left])
        child.popen = None

    def _start_again(self, child: Child, why: str, *, retryable: bool, evidence: tuple[str, ...]) -> None:
        now = clock.monotonic()
        child.deaths.append(now)
        child.problem = why
        decision = after_death(deaths=child.deaths, now=now, limit=self.plan.settings.restart_limit, was_ready=child.was_ready, retryable=retryable, cause=why)
        if isinstance(decision, GiveUp):
            child.life = Life.STOPPED
            self.recorder.event("program-given-up", name=child.program.name, why=decision.why)
            if self._needed(child):
                self.failure = Failure.of_program(decision, child.program, evidence)
            else:
                self.talk.say(f"{child.program.name} is not started again: {decision.why}", level="error")
            return
        child.life, child.start_at = Life.WAITING, now + decision.delay_seconds
        self.talk.say(f"{child.program.name} died ({why}); starting it again in {decision.delay_seconds:g} s.", level="warning")

    def _needed(self, child: Child) -> bool:
        """Can the service go on without it? A first start wants everything; later one engine is enough to serve."""
        engines = [other for other in self.children if other.program.is_engine]
        return not self.ready_once or (child.program.is_engine and all(other.life is Life.STOPPED for other in engines))

    def _settle(self) -> None:
        """The service's state follows from its programs'."""
        engines = [child for child in self.children if child.program.is_engine]
        if all(child.life is Life.READY for child in self.children):
            self.recorder.move(State.READY)
            if not self.ready_once:
                self.ready_once, self.ready_seconds = True, round(clock.monotonic() - self.began, 2)
                self.recorder.event("ready", seconds=self.ready_seconds)
                self._write()
                self.talk.ready(self.snapshot(), self.ready_seconds)
        elif any(child.life is Life.READY for child in engines):
            if self.ready_once:
                self.recorder.move(
                    State.DEGRADED, "; ".join(f"{child.program.name}: {child.problem or child.life}" for child in self.children if child.life is not Life.READY)
                )
        elif self.recorder.state in SERVING:
            self.recorder.move(State.STARTING, "; ".join(child.problem for child in engines if child.problem))

    # --- stopping -----------------------------------------------------------------------------------------------------------

    def _shut_down(self) -> Outcome:
        """The stop ladder: close the gate, let requests finish, end the programs, prove it."""
        began = clock.monotonic()
        at_end = self.plan.settings.slurm_at_end if self.end_is_near and not self.stop_asked else "stop"
        successor = self.wall_time.chain(at_end, self.paths, self.talk.say)
        if successor:
            self.recorder.event("chained", job_id=successor)
        if self.failure is None:
            self._drain()
        self.recorder.move(State.STOPPING, self.failure.error.message if self.failure else "the wall time is near" if self.end_is_near else "asked to")
        self._write()
        not_ended = [member for child in reversed(self.children) for member in self._end(child)]
        not_ended += ladder.kill(self._strays(), self.pause)
        self.pause(0)  # no zombie of ours is left to whoever comes after us
        leftovers = find_leftovers(self.plan, self.paths, not_ended, self.gpu_memory_before, self.pause)
        outcome = Outcome(self.failure, self.ready_once, leftovers, requeue=self.wall_time.requeues(at_end))
        self.recorder.event("stopped", seconds=round(clock.monotonic() - began, 2), leftovers=list(outcome.leftovers))
        self.recorder.move(outcome.state, "; ".join(outcome.leftovers))
        self._write(outcome)
        return outcome

    def _abandon(self) -> None:
        """A defect of ours ended the loop: its traceback is on its way up, and no program may go on unwatched."""
        self.stop_asked = 2
        for child in reversed(self.children):
            self._end(child)
        self.failure = Failure(
            State.FAILED, OpsError("The supervisor failed; its log has the traceback", code="defect", fix=f"See {self.paths.supervisor_log}")
        )
        self.recorder.move(State.STOPPING)
        self.recorder.move(State.FAILED, "defect")
        self._write(Outcome(self.failure, self.ready_once, ()))

    def _drain(self) -> None:
        """Admit nothing new and wait for the requests that run, as long as DRAIN_TIMEOUT allows."""
        if self.recorder.state not in SERVING:
            return
        self.recorder.move(State.DRAINING, "the wall time is near" if self.end_is_near else "")
        self._write_gate(draining=True)
        self._write()
        began = clock.monotonic()
        while clock.monotonic() < self.wall_time.drain_until(began, self.plan.settings.drain_timeout) and self.stop_asked <= 1:
            running = requests_running(self.children, self.key)
            if not running:
                return
            self.talk.progress(f"waiting for {running} running request{'s' if running > 1 else ''}")
            self.pause(0.2)

    def _end(self, child: Child) -> list[Identity]:
        child.ended()
        child.life = Life.STOPPED
        if child.identity is None or child.popen is None:
            return []
        grace = self.wall_time.grace_seconds(child.program.stop_seconds if child.was_ready else min(child.program.stop_seconds, 5))
        return ladder.end(child.identity, grace_seconds=0 if self.stop_asked > 1 else grace, pause=self.pause)

    def _strays(self) -> list[Identity]:
        """Children of ours that left their session; the kernel gave them to us when their parent died."""
        known = {child.popen.pid for child in self.children if child.popen}
        return [identity for pid in process.children_of(self.me.pid) if pid not in known and (identity := process.identify(pid))]

    # --- telling ------------------------------------------------------------------------------------------------------------

    def _write_gate(self, *, draining: bool) -> None:
        self.recorder.gate(gate_rules(self.plan, self.paths, draining=draining, ends_at=self.wall_time.ends_at))

    def snapshot(self, outcome: Outcome | None = None) -> dict[str, Any]:
        """What state.json holds beside the state itself."""
        error = outcome.error if outcome else None
        return {
            "profile": self.plan.profile,
            "model": self.plan.settings.served_model_name,
            "url": self.plan.url,
            "needs_key": self.plan.api_keys_file is not None,
            "started_at": self.started_at,
            "ready_seconds": self.ready_seconds,
            "generation": self.generation,
            "planned": self.planned_memory,
            "media": {"url": self.plan.media.url, "root": str(self.plan.media_root)},
            **children_facts(self.children, self.expected_seconds, self.rates),
            "slurm": self.allocation.as_json() if self.allocation else None,
            "supervisor": self.me.as_json(),
            "leftovers": list(outcome.leftovers) if outcome else [],
            "error": {**error.as_json(), "exit_code": int(error.exit_code)} if error else None,
        }

    def _write(self, outcome: Outcome | None = None) -> None:
        snapshot = self.snapshot(outcome)
        self.recorder.write(snapshot)
        self.talk.update(self.recorder.state, snapshot)
