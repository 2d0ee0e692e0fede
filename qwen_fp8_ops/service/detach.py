"""A supervisor in the background: started in a session of its own, followed until it is ready or has failed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import ExitCode, NotRunningError, OpsError
from qwen_fp8_ops.outside import lock, process
from qwen_fp8_ops.outside.files import make_folder, read_json, write_error
from qwen_fp8_ops.outside.process import Identity
from qwen_fp8_ops.service import log_files
from qwen_fp8_ops.service.changeover import Request
from qwen_fp8_ops.service.start import already_running
from qwen_fp8_ops.service.states import ENDED, SERVING, State
from qwen_fp8_ops.service.succession import is_over
from qwen_fp8_ops.service.talk import Talk
from qwen_fp8_ops.service.wakeups import RESTART_SIGNAL

POLL_SECONDS = 0.1
LINES_READ = 6


class RecordedError(OpsError):
    """An error that the supervisor recorded, raised again where its starter waits."""

    def __init__(self, recorded: dict[str, Any]) -> None:
        super().__init__(recorded["message"], fix=recorded.get("fix", ""), code=recorded.get("code", ""))
        self.exit_code = ExitCode(recorded.get("exit_code", ExitCode.FAILED))


def start_detached(command: Sequence[str], paths: RunPaths, talk: Talk) -> dict[str, Any]:
    """Start ``command``, a supervisor, in the background; returns state.json's content once the service is ready.

    Raises:
        OpsError: it runs already, or its start failed; the error is the supervisor's own.
        KeyboardInterrupt: after the start has been taken back.
    """
    make_folder(paths.run)
    holder = _who_runs(paths)
    if holder is not None:
        raise already_running(holder, paths)
    make_folder(paths.logs)
    with _new_log(paths.supervisor_log) as log:
        try:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        except OSError as error:
            raise OpsError(f"Cannot start {command[0]}: {error.strerror}", code="cannot-start") from error
        supervisor = process.identify(child.pid, os.environ.get("SLURM_JOB_ID"))
        assert supervisor is not None  # until it is waited for, there is at least its zombie
        try:
            while child.poll() is None:
                state = _state_of(paths, supervisor)
                if state and _follow(state, talk):
                    return state
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            process.send(supervisor, signal.SIGTERM)
            child.wait()
            raise
        # From this start's own file: at the path may by now be the log of another start.
        log.seek(0)
        said = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        raise _why_it_ended(paths, supervisor, said[-LINES_READ:])


def restart(request: Request, supervisor: Identity, paths: RunPaths, talk: Talk) -> dict[str, Any]:
    """Have the running supervisor take up another plan; returns state.json's content once the service is ready again.

    Raises:
        OpsError: the new start failed. Where the plan before was taken up again, the service is ready all the same.
    """
    generation = (_state_of(paths, supervisor) or {}).get("generation", 0)
    request.write(paths)
    process.send(supervisor, RESTART_SIGNAL)
    while supervisor.alive:
        state = _state_of(paths, supervisor)
        if state and state.get("generation", 0) > generation and _follow(state, talk):
            _refuse_taken_back(state)
            return state
        time.sleep(POLL_SECONDS)
    raise _why_it_ended(paths, supervisor, log_files.last_lines(paths.supervisor_log, LINES_READ))


def _refuse_taken_back(state: dict[str, Any]) -> None:
    """
    Raises:
        OpsError: it serves, with the settings of before.
    """
    change = state.get("change") or {}
    error = change.get("taken_back")
    if error:
        asked = " ".join(f"{key}={text['to']}" for key, text in change["settings"].items())
        message = f"It does not start with {asked}, and serves again with the settings of before. {error['message']}"
        raise OpsError(message, code="settings-taken-back", fix=error["fix"])


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


def _who_runs(paths: RunPaths) -> Identity | None:
    """The supervisor that holds the lock: a living one, or one of another host, which is not ours to judge."""
    holder = lock.holder(paths.lock)
    return holder if holder is not None and (holder.alive or not (holder.here or is_over(holder, os.environ.get("SLURM_JOB_ID")))) else None


def _new_log(path: Path) -> IO[bytes]:
    """A log file that no other start writes to, not even one at the same moment: what was at the path is moved to path.1 first.

    Raises:
        OpsError: the folder refuses it.
    """
    while True:
        try:
            log_files.rotate(path)
            return open(path, "a+b", opener=lambda name, flags: os.open(name, flags | os.O_EXCL, 0o644))
        except FileExistsError:
            continue  # the other start was quicker; its turn to be moved
        except OSError as error:
            raise write_error(path, error) from error


def _state_of(paths: RunPaths, supervisor: Identity) -> dict[str, Any] | None:
    """state.json, if this supervisor wrote it; an earlier one may have had the same pid."""
    state = read_json(paths.state)
    return state if isinstance(state, dict) and Identity.from_json(state.get("supervisor")) == supervisor else None


def _follow(state: dict[str, Any], talk: Talk) -> bool:
    """Show where the start is; True when it is done."""
    name = State(state["state"])
    talk.update(name, state)
    return name in SERVING


def _why_it_ended(paths: RunPaths, supervisor: Identity, said: Sequence[str]) -> OpsError:
    state = _state_of(paths, supervisor)
    if state and state.get("error"):
        return RecordedError(state["error"])
    if state and State(state["state"]) in ENDED:
        return NotRunningError("The service was stopped", code="stopped", fix="./start_service.sh")
    other = _who_runs(paths)
    if other is not None:
        return already_running(other, paths)  # of two starts at the same moment, this was the second
    ended = f"The supervisor ended before the service was ready. The last it said: {said[-1] if said else 'nothing'}"
    reason = next((line.removeprefix("Error: ") for line in said if line.startswith("Error: ")), ended)
    return OpsError(reason, code="start-failed", fix=f"See {paths.supervisor_log}")
