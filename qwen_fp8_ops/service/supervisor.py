"""The supervisor: owns the programs of one plan from their start to the proof that they are gone.

One thread, one loop, a fixed order: signals, deaths, health, decisions, record. What is done about each program is the keeper's.
Signal handlers only note the signal; probes run in threads of their own and only leave their latest answer. Everything that the
loop does returns quickly, but for the two waits of a stop (drain, end), which go on reaping and listening to signals through
``pause``.
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from functools import partial
from typing import Any

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import clock
from qwen_fp8_ops.outside.process import Identity
from qwen_fp8_ops.plan.launch import LaunchPlan
from qwen_fp8_ops.plan.situation import expected_memory
from qwen_fp8_ops.service import shortage
from qwen_fp8_ops.service.changeover import Changeover, Request
from qwen_fp8_ops.service.child import Child, Life
from qwen_fp8_ops.service.devices import confined
from qwen_fp8_ops.service.ending import Ending
from qwen_fp8_ops.service.endpoint import publish
from qwen_fp8_ops.service.gate_rules import gate_rules
from qwen_fp8_ops.service.keeper import Keeper
from qwen_fp8_ops.service.outcome import Failure, Outcome, find_leftovers, gpu_memory_used
from qwen_fp8_ops.service.post_mortem import PostMortem
from qwen_fp8_ops.service.record import Recorder
from qwen_fp8_ops.service.shortage import patiently
from qwen_fp8_ops.service.snapshot import Rates, children_facts
from qwen_fp8_ops.service.states import ENDED, SERVING, State
from qwen_fp8_ops.service.talk import Talk
from qwen_fp8_ops.service.wakeups import RESTART_SIGNAL, WALL_TIME_SIGNAL, Wakeups, reap
from qwen_fp8_ops.service.wall_time import WallTime
from qwen_fp8_ops.slurm.allocation import Allocation
from qwen_fp8_ops.slurm.script import notice_seconds

TICK_SECONDS = 0.25


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
        self.wakeups = Wakeups()
        post_mortem = PostMortem(paths, lambda: self.wall_time.ends_at)
        self.keeper = Keeper(plan, paths, me, recorder, talk, key=key, pause=self.pause, wake=self.wakeups.wake, post_mortem=post_mortem)
        self.stop_asked = 0
        self.ending = Ending(me, self.wall_time, talk, self.pause, lambda: self.stop_asked > 1)
        self.restart_asked = False
        self.began = clock.monotonic()
        self.started_at = clock.now()
        self.ready_seconds: float | None = None
        self.generation = 0
        self.changeover: Changeover | None = None
        self.rates = Rates()
        self.gpu_memory_before = gpu_memory_used(plan)
        self.planned_memory = expected_memory(plan, paths, os.environ)

    # --- the loop -----------------------------------------------------------------------------------------------------------

    def run(self, *, reuse_media: bool) -> Outcome:
        """Start everything, watch until asked to stop or until nothing helps, then stop everything and prove it."""
        self.wakeups.listen()
        self.keeper.begin()
        self.wall_time.watch()
        self.recorder.move(State.STARTING)
        self._write_gate(draining=False)
        if reuse_media:
            self.keeper.reuse_media()
        try:
            self._watch()
            return self._shut_down()
        finally:
            if self.recorder.state not in ENDED:
                self._abandon()

    def _watch(self) -> None:
        while not self.stop_asked and not self.keeper.failure and not self.end_is_near:
            try:
                self._round()
            except OSError as error:
                self.recorder.tell_once(shortage.words(error))
            self.pause(TICK_SECONDS)
            if self.restart_asked:
                self._restart_engines()

    def _round(self) -> None:
        """
        Raises:
            OSError: what was begun is done in the next round.
        """
        self._mind_the_end()
        if self.keeper.start_due():
            self._write()
        self.keeper.observe()
        self._mind_the_change()
        self._settle()
        self._write()

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

    def _restart_engines(self) -> None:
        """Take up the plan that is asked for, or the same once more: drain, and end the engines and whatever becomes another program."""
        self.restart_asked = False
        request = self._request()
        changeover = Changeover.between(self._proven_plan, request.plan)
        with_settings = f" with {changeover.settings(new=True)}" if changeover.changed else ""
        self.talk.say(f"Restarting the engine{with_settings}.")
        self._drain()
        if self._change_to(request.plan, keep_weights=request.keep_weights):
            self.changeover = changeover
            self.recorder.event("restart", settings=changeover.as_json()["settings"], keep_weights=request.keep_weights)
            self.recorder.move(State.STARTING, "restart")

    @property
    def _proven_plan(self) -> LaunchPlan:
        """The latest with which the service was ready."""
        on_trial = self.changeover is not None and self.changeover.can_be_taken_back and not self.keeper.ready_once
        return self.changeover.previous if self.changeover and on_trial else self.plan

    def _request(self) -> Request:
        try:
            request = Request.take(self.paths)
            return replace(request, plan=confined(request.plan, self.allocation, os.environ)) if request else Request(self.plan, keep_weights=True)
        except OpsError as error:
            self.talk.say(f"The new settings are not taken up: {error}", level="warning")
            return Request(self.plan, keep_weights=True)

    def _change_to(self, plan: LaunchPlan, *, keep_weights: bool) -> bool:
        """False when a stop was asked for meanwhile."""
        for child in self.keeper.crew.leaving(plan, keep_weights=keep_weights):
            self._end(child)
        if self.stop_asked:
            return False
        self.plan, self.planned_memory = plan, expected_memory(plan, self.paths, os.environ)
        self.keeper.take_up(plan, keep_weights=keep_weights)
        self.began, self.generation = clock.monotonic(), self.generation + 1
        self.recorder.attempt(lambda: publish(plan, self.paths, self.me, self.allocation))
        self._write_gate(draining=False)
        return True

    def _mind_the_change(self) -> None:
        """Other settings, with which the service does not start, are taken back: what served before will serve again."""
        failure, changeover = self.keeper.failure, self.changeover
        if failure is None or changeover is None or self.keeper.ready_once or not changeover.can_be_taken_back:
            return
        self.recorder.event("settings-taken-back", settings=changeover.as_json()["settings"], code=failure.error.code, why=failure.error.message)
        self.talk.say(
            f"It does not start with {changeover.settings(new=True)}; going back to {changeover.settings(new=False)}. {failure.error.message}", level="error"
        )
        if self._change_to(changeover.previous, keep_weights=True):
            self.changeover = changeover.taken_back(failure.error)

    @property
    def children(self) -> list[Child]:
        return self.keeper.children

    def _settle(self) -> None:
        """The service's state follows from its programs'. The first time, being ready is enough; later nothing may ail them."""
        engines = self.keeper.crew.engines
        if all(child.life is Life.READY and not (child.problem and self.keeper.ready_once) for child in self.children):
            self.recorder.move(State.READY)
            if not self.keeper.ready_once:
                self.keeper.ready_once, self.ready_seconds = True, round(clock.monotonic() - self.began, 2)
                self.recorder.event("ready", seconds=self.ready_seconds)
                self._write()
                self.talk.ready(self.snapshot(), self.ready_seconds)
        elif any(child.life is Life.READY for child in engines):
            if self.keeper.ready_once:
                self.recorder.move(
                    State.DEGRADED,
                    "; ".join(
                        f"{child.program.name}: {child.problem or child.life}" for child in self.children if child.problem or child.life is not Life.READY
                    ),
                )
        elif self.recorder.state in SERVING:
            self.recorder.move(State.STARTING, "; ".join(child.problem for child in engines if child.problem))

    # --- stopping -----------------------------------------------------------------------------------------------------------

    def _shut_down(self) -> Outcome:
        """The stop ladder: close the gate, let requests finish, end the programs, prove it."""
        began = clock.monotonic()
        self._write()
        at_end = self.plan.settings.slurm_at_end if self.end_is_near and not self.stop_asked else "stop"
        successor = self.wall_time.chain(at_end, self.paths, self.talk.say)
        if successor:
            self.recorder.event("chained", job_id=successor)
        if self.keeper.failure is None:
            self._drain()
        self.recorder.move(
            State.STOPPING, self.keeper.failure.error.message if self.keeper.failure else "the wall time is near" if self.end_is_near else "asked to"
        )
        self._write()
        not_ended = [member for child in self.keeper.crew.in_order_of_end for member in self._end(child)]
        not_ended += patiently(lambda: self.ending.end_strays(self.children), self.pause, self.recorder.tell_once)
        self.pause(0)  # no zombie of ours is left to whoever comes after us
        look = partial(find_leftovers, self.plan, self.paths, not_ended, self.gpu_memory_before, self.pause)
        leftovers = patiently(look, self.pause, self.recorder.tell_once)
        outcome = Outcome(self.keeper.failure, self.keeper.ready_once, leftovers, requeue=self.wall_time.requeues(at_end))
        self.recorder.event("stopped", seconds=round(clock.monotonic() - began, 2), leftovers=list(outcome.leftovers))
        self.recorder.move(outcome.state, "; ".join(outcome.leftovers))
        self._write(outcome)
        return outcome

    def _abandon(self) -> None:
        """A defect of ours ended the loop: its traceback is on its way up, and no program may go on unwatched."""
        self.stop_asked = 2
        for child in self.keeper.crew.in_order_of_end:
            self._end(child)
        self.keeper.failure = Failure(
            State.FAILED, OpsError("The supervisor failed; its log has the traceback", code="defect", fix=f"See {self.paths.supervisor_log}")
        )
        self.recorder.move(State.STOPPING)
        self.recorder.move(State.FAILED, "defect")
        self._write(Outcome(self.keeper.failure, self.keeper.ready_once, ()))

    def _end(self, child: Child) -> list[Identity]:
        return patiently(lambda: self.ending.end(child), self.pause, self.recorder.tell_once)

    def _drain(self) -> None:
        """Admit nothing new and wait for the requests that run, as long as DRAIN_TIMEOUT allows."""
        if self.recorder.state not in SERVING:
            return
        self.recorder.move(State.DRAINING, "the wall time is near" if self.end_is_near else "")
        self._write_gate(draining=True)
        self._write()
        self.ending.let_finish(self.children, self.key, self.plan.settings.drain_timeout)

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
            "change": self.changeover.as_json() if self.changeover else None,
            "planned": self.planned_memory,
            "media": {"url": self.plan.media.url, "root": str(self.plan.media_root)},
            **children_facts(self.children, self.rates),
            "slurm": self.allocation.as_json() if self.allocation else None,
            "supervisor": self.me.as_json(),
            "stop_asked": self.stop_asked > 0,
            "leftovers": list(outcome.leftovers) if outcome else [],
            "error": {**error.as_json(), "exit_code": int(error.exit_code)} if error else None,
        }

    def _write(self, outcome: Outcome | None = None) -> None:
        snapshot = self.snapshot(outcome)
        self.recorder.write(snapshot)
        self.talk.update(self.recorder.state, snapshot)
