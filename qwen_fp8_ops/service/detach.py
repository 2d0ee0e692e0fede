"""A supervisor in the background: started in a session of its own, followed until it is ready or has failed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import ExitCode, NotRunningError, OpsError
from qwen_fp8_ops.outside import lock, process
from qwen_fp8_ops.outside.files import make_folder, read_json, write_error, write_json
from qwen_fp8_ops.outside.process import Identity
from qwen_fp8_ops.plan.launch import LaunchPlan
from qwen_fp8_ops.service import log_files
from qwen_fp8_ops.service.start import already_running
from qwen_fp8_ops.service.states import ENDED, SERVING, State
from qwen_fp8_ops.service.talk import Talk
from qwen_fp8_ops.service.wakeups import RESTART_SIGNAL

POLL_SECONDS = 0.1


class RecordedError(OpsError):
    """An error that the supervisor recorded, raised again where its starter waits."""

    def __init__(self, recorded: dict[str, Any]) -> None:
        super().__init__(recorded["message"], fix=recorded.get("fix", ""), code=recorded.get("code", ""))
        self.exit_code = ExitCode(recorded.get("exit_code", ExitCode.FAILED))


def start_detached(arguments: Sequence[str], paths: RunPaths, talk: Talk) -> dict[str, Any]:
    """Start ``qwen-fp8 ARGUMENTS`` in the background; returns state.json's content once the service is ready.

    Raises:
        OpsError: it runs already, or its start failed; the error is the supervisor's own.
        KeyboardInterrupt: after the start has been taken back.
    """
    holder = lock.holder(paths.lock) if paths.run.exists() else None
    if holder is not None and (holder.alive or not holder.here):
        raise already_running(holder, paths)
    make_folder(paths.run)
    make_folder(paths.logs)
    try:
        log_files.rotate(paths.supervisor_log)
        with paths.supervisor_log.open("ab") as output:
            supervisor = subprocess.Popen(
                [sys.executable, "-m", "qwen_fp8_ops", *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
    except OSError as error:
        raise write_error(paths.supervisor_log, error) from error
    identity = process.identify(supervisor.pid)
    try:
        while supervisor.poll() is None:
            state = _state_of(paths, supervisor.pid)
            if state and _follow(state, talk):
                return state
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        if identity:
            process.send(identity, signal.SIGTERM)
        supervisor.wait()
        raise
    raise _why_it_ended(paths, supervisor.pid)


def restart(plan: LaunchPlan, supervisor: Identity, paths: RunPaths, talk: Talk) -> dict[str, Any]:
    """Have the running supervisor take up ``plan``; returns state.json's content once the service is ready again.

    Raises:
        OpsError: the new start failed.
    """
    generation = (read_json(paths.state) or {}).get("generation", 0)
    write_json(paths.next_plan, plan.as_json())
    process.send(supervisor, RESTART_SIGNAL)
    while supervisor.alive:
        state = _state_of(paths, supervisor.pid)
        if state and state.get("generation", 0) > generation and _follow(state, talk):
            return state
        time.sleep(POLL_SECONDS)
    raise _why_it_ended(paths, supervisor.pid)


def running_supervisor(paths: RunPaths) -> Identity:
    """
    Raises:
        NotRunningError: none runs here.
    """
    holder = lock.holder(paths.lock) if paths.run.exists() else None
    if holder is None or (holder.here and not holder.alive):
        raise NotRunningError("The service is not running", fix="./start_service.sh")
    if not holder.here:
        raise NotRunningError(f"The service runs on {holder.host}, not here", code="other-host", fix=f"ssh {holder.host}")
    return holder


def _state_of(paths: RunPaths, pid: int) -> dict[str, Any] | None:
    """state.json, if this supervisor wrote it."""
    state = read_json(paths.state)
    return state if isinstance(state, dict) and (state.get("supervisor") or {}).get("pid") == pid else None


def _follow(state: dict[str, Any], talk: Talk) -> bool:
    """Show where the start is; True when it is done."""
    name = State(state["state"])
    talk.update(name, state)
    return name in SERVING


def _why_it_ended(paths: RunPaths, pid: int) -> OpsError:
    state = _state_of(paths, pid)
    if state and state.get("error"):
        return RecordedError(state["error"])
    if state and State(state["state"]) in ENDED:
        return NotRunningError("The service was stopped", code="stopped", fix="./start_service.sh")
    said = log_files.last_lines(paths.supervisor_log, 6)
    first = next((line for line in said if line.startswith("Error: ")), said[-1] if said else "it said nothing")
    return OpsError(first.removeprefix("Error: "), code="start-failed", fix=f"See {paths.supervisor_log}")
