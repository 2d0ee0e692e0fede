"""Stopping from outside: ask the supervisor, watch it go, and look for ourselves that nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import OpsError, TimedOutError
from qwen_fp8_ops.outside import clock, lock, process
from qwen_fp8_ops.outside.files import read_json, write_json
from qwen_fp8_ops.outside.process import Identity
from qwen_fp8_ops.plan.launch import LaunchPlan
from qwen_fp8_ops.service import ladder, orphans
from qwen_fp8_ops.service.endpoint import withdraw
from qwen_fp8_ops.service.outcome import GPU_MEMORY_SECONDS, find_leftovers
from qwen_fp8_ops.service.states import ENDED, State

MARGIN_SECONDS = 60.0
FORCED_SECONDS = 20.0


@dataclass(frozen=True)
class Stopped:
    """``was_running``: there was something to stop. ``leftovers``: what could not be confirmed to be gone, in words."""

    was_running: bool
    seconds: float
    leftovers: tuple[str, ...]


def stop(paths: RunPaths, say: Callable[[str], None], progress: Callable[[str], None], *, force: bool = False) -> Stopped:
    """
    Args:
        force: do not wait for running requests; kill a supervisor that does not react.

    Raises:
        OpsError: it runs on another host.
        TimedOutError: the supervisor is still at it after its own time limits.
    """
    began = clock.monotonic()
    holder = lock.holder(paths.lock) if paths.run.exists() else None
    if holder is not None and not holder.here:
        raise OpsError(
            f"The service runs on {holder.host} (pid {holder.pid}), not here",
            code="other-host",
            fix=f"qwen-fp8 jobs stop {holder.job_id}" if holder.job_id else f"ssh {holder.host} {paths.home}/stop_service.sh",
        )
    was_running = holder is not None and holder.alive
    if holder is not None and holder.alive:
        _ask(holder, paths, progress, force)
    elif paths.run.exists():
        was_running = bool(orphans.find(paths))
    leftovers = _clear(paths, say, just_stopped=was_running) if paths.run.exists() else ()
    return Stopped(was_running, clock.monotonic() - began, leftovers)


def _ask(supervisor: Identity, paths: RunPaths, progress: Callable[[str], None], force: bool) -> None:
    plan = _recorded_plan(paths)
    own_limits = plan.settings.drain_timeout + max(program.stop_seconds for program in plan.programs) if plan else 600
    deadline = clock.monotonic() + (FORCED_SECONDS if force else own_limits + ladder.KILL_SECONDS + GPU_MEMORY_SECONDS + MARGIN_SECONDS)
    # Inside a job a SIGTERM is SLURM's, which kills soon after: the supervisor would not take the time to drain.
    number = signal.SIGINT if supervisor.job_id else signal.SIGTERM
    if force or not _is_asked(paths, supervisor):  # a second signal would be taken for haste, and running requests be cut off
        process.send(supervisor, number)
    if force:
        time.sleep(0.3)  # two signals at once would be taken for one
        process.send(supervisor, number)
    while supervisor.alive:
        if clock.monotonic() > deadline:
            if not force:
                raise TimedOutError(f"The supervisor (pid {supervisor.pid}) is still stopping", fix="qwen-fp8 stop --force")
            ladder.kill([supervisor], _sleep)
            return
        progress(str(_recorded(paths.state).get("state", "stopping")))
        time.sleep(0.1)


def _is_asked(paths: RunPaths, supervisor: Identity) -> bool:
    """Has somebody else asked this supervisor to stop already?"""
    state = _recorded(paths.state)
    return state.get("stop_asked") is True and Identity.from_json(state.get("supervisor")) == supervisor


def _clear(paths: RunPaths, say: Callable[[str], None], *, just_stopped: bool) -> tuple[str, ...]:
    """With the supervisor gone: end what it left, if anything, and say what cannot be confirmed."""
    me = process.identify(os.getpid())
    assert me is not None
    try:
        if lock.acquire(paths.lock, me) is not None:
            return ()  # somebody started it again at this moment; what runs now is theirs
    except OpsError as error:
        say(f"{error.message}; so nobody else can start it meanwhile either")
    try:
        state = _recorded(paths.state)
        plan = _recorded_plan(paths)
        not_ended = orphans.sweep(paths, say)
        ended = state.get("state") in ENDED
        leftovers = find_leftovers(plan, paths, not_ended, {}, _sleep) if plan else ()
        told = state.get("leftovers")
        recorded_leftovers = [text for text in (told if isinstance(told, list) else []) if just_stopped and str(text).startswith("GPU")]
        if state and not ended:
            with contextlib.suppress(OpsError):  # a full disk: `status` sees for itself that nothing runs
                write_json(paths.state, {**state, "state": State.STOPPED.value, "since": clock.now(), "load": None})
        withdraw(paths)
        return tuple(dict.fromkeys([*leftovers, *recorded_leftovers]))
    finally:
        lock.release(paths.lock, me)


def _recorded_plan(paths: RunPaths) -> LaunchPlan | None:
    try:
        return LaunchPlan.from_json(value) if (value := _recorded(paths.plan)) else None
    except OpsError:
        return None


def _recorded(path: Path) -> dict[str, Any]:
    """What a file of the run says; nothing where it is missing, damaged or none of ours: that must keep nobody from stopping."""
    try:
        value = read_json(path)
    except OpsError:
        return {}
    return value if isinstance(value, dict) else {}


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False
