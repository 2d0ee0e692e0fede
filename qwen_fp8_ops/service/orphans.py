"""What a supervisor that was killed left behind: found by the sessions it recorded, and ended before anything new is started."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import clock, net, process
from qwen_fp8_ops.outside.files import read_json
from qwen_fp8_ops.outside.process import Identity
from qwen_fp8_ops.outside.weight_traces import remove_counters, remove_sockets
from qwen_fp8_ops.plan.launch import LaunchPlan
from qwen_fp8_ops.plan.program import RUN_MARK, Program
from qwen_fp8_ops.service import ladder

PORTS_SECONDS = 5.0
"""The kernel closes the sockets of a process that was killed at once, or very soon after it is gone."""


def recorded_leaders(state: Any) -> list[Identity]:
    """The programs a state.json tells of, that this host may judge."""
    programs = state.get("programs") if isinstance(state, dict) else None
    found = [Identity.from_json(program.get("identity")) for program in programs or [] if isinstance(program, dict)]
    return [identity for identity in found if identity is not None and identity.here]


def find(paths: RunPaths) -> list[Identity]:
    """Living processes of an earlier run: of its recorded sessions, and any whose environment carries the run's mark
    (a program started in the moment between its start and the record of it).
    """
    try:
        state = read_json(paths.state)
    except OpsError:
        state = None  # damaged: the environment still tells
    members = {member.pid: member for leader in recorded_leaders(state) for member in process.session_members(leader)}
    for pid in process.all_pids():
        if pid not in members and pid != os.getpid() and is_marked(pid, paths):
            identity = process.identify(pid)
            if identity:
                members[pid] = identity
    return list(members.values())


def is_marked(pid: int, paths: RunPaths) -> bool:
    """Was it started for this run? The plan puts the mark into each program's environment."""
    return os.fsencode(f"{RUN_MARK}={paths.run}") + b"\0" in process.environment_of(pid)


def sweep(paths: RunPaths, say: Callable[[str], None]) -> list[Identity]:
    """End them; returns those that would not go."""
    return _end(find(paths), say)


def make_way(plan: LaunchPlan, paths: RunPaths, say: Callable[[str], None]) -> None:
    """Sweep before a start. Where something was ended, its ports get a moment to come free; then the preflight judges."""
    members = find(paths)
    _end(members, say)
    remove_sockets(paths.weight_sockets)
    deadline = clock.monotonic() + PORTS_SECONDS
    while members and any(_is_closing(program) for program in plan.programs if program.port) and clock.monotonic() < deadline:
        _sleep(0.05)


def _end(members: list[Identity], say: Callable[[str], None]) -> list[Identity]:
    """They are killed without being asked: their supervisor is gone, nobody drains them, and a half-dead engine does not react."""
    if members:
        names = ", ".join(f"{member.pid} ({process.command_line(member.pid)[:40] or '?'})" for member in members)
        say(f"Ending what an earlier run left behind: {names}")
    left = ladder.kill(members, _sleep)
    remove_counters(member.pid for member in members)
    return left


def _is_closing(program: Program) -> bool:
    """Is its port taken, and by no process that could be named? For a living one we would wait in vain."""
    try:
        owner = net.port_owner(program.host, program.port)
    except OSError:
        return False  # no port that we could ever have
    return owner is not None and owner.pid is None


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False
