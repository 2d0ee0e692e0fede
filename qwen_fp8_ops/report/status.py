"""The status of a run as one object with a fixed shape (`status --json`), also when nothing runs or cannot be read.

Reads the run's files, /proc and NVML; decides nothing and writes nothing. Of a run on another host it shows what was recorded and
judges no pid.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import clock, process
from qwen_fp8_ops.outside.files import move_away, read_json
from qwen_fp8_ops.outside.process import Identity
from qwen_fp8_ops.report.gpu_report import GpuReport, collect_gpus
from qwen_fp8_ops.service.states import ENDED, SERVING, State

SCHEMA = 1
RANK = re.compile(r"Worker(?:(?:_[A-Z]+\d+)*?_TP(\d+))?")
"""In a worker's title, such as VLLM::Worker_TP3_EP3, or VLLM::Worker_DP0_TP3; at TP=1 it is VLLM::Worker."""

Problem = dict[str, str]


def collect(paths: RunPaths) -> dict[str, Any]:
    """The whole status. Keys and units are a contract: report/status.schema.json."""
    problems: list[Problem] = []
    recorded = _read(paths, problems)
    try:
        return _status(recorded, problems)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return _status({}, [_damage(paths, error)])


def _status(recorded: dict[str, Any], problems: list[Problem]) -> dict[str, Any]:
    supervisor = Identity.from_json(recorded.get("supervisor"))
    state = State(recorded.get("state", State.STOPPED))
    error = recorded.get("error")
    remote = supervisor is not None and not supervisor.here
    processes = [] if remote else _processes(recorded)
    if state not in ENDED and not remote and not (supervisor and supervisor.alive):
        state = State.FAILED
        left = len(processes)
        error = {
            "code": "supervisor-gone",
            "message": f"The supervisor (pid {supervisor.pid if supervisor else '?'}) is gone"
            + (f"; {left} processes of the service still run, unwatched" if left else ""),
            "fix": "./start_service.sh ends what is left and starts again; ./stop_service.sh only ends it",
        }
    problems += [
        {"code": f"{program['name']}-{program['state']}", "message": f"{program['name']}: {program['problem']}", "fix": f"See {program['log']}"}
        for program in recorded.get("programs", [])
        if program.get("problem") and state not in ENDED
    ]
    problems += _taken_back(recorded.get("change"), state)
    if remote and supervisor is not None:
        problems.append({"code": "other-host", "message": f"It runs on {supervisor.host}; this is what it last recorded", "fix": f"ssh {supervisor.host}"})
    alive = state not in ENDED
    gpus = None if remote else _gpus(processes, recorded if alive else {}, os.environ)
    if gpus:
        problems += [gpus.missing] if gpus.missing else gpus.problems
    return {
        "schema": SCHEMA,
        "ok": state in SERVING,
        "state": state.value,
        "profile": recorded.get("profile"),
        "model": recorded.get("model"),
        "url": recorded.get("url"),
        "since": recorded.get("since"),
        "uptime_seconds": round(clock.seconds_since(recorded["started_at"]), 1) if alive and recorded.get("started_at") else None,
        "restarts": recorded.get("restarts", 0),
        "load": recorded.get("load") if alive else None,
        "processes": processes,
        "media": _media(recorded, alive),
        "gpus": gpus.gpus_json() if gpus else [],
        "driver": gpus.driver_json() if gpus else None,
        "distribution": gpus.distribution_json() if gpus else None,
        "memory": recorded.get("memory") if alive else None,
        "engines": recorded.get("engines", []) if alive else [],
        "engine": recorded.get("engine") if state in SERVING else None,
        "slurm": _slurm(recorded.get("slurm")),
        "change": recorded.get("change") if alive else None,
        "problems": problems,
        "error": {key: error[key] for key in ("code", "message", "fix")} if error else None,
    }


def _gpus(processes: list[dict[str, Any]], recorded: dict[str, Any], environ: Mapping[str, str]) -> GpuReport:
    ranks = {entry["pid"]: entry["rank"] for entry in processes}
    return collect_gpus(ranks, environ, recorded.get("memory"), recorded.get("planned"))


def collect_for_gpus(paths: RunPaths, environ: Mapping[str, str]) -> dict[str, Any]:
    """The GPUs alone (`gpus --json`), with what a recorded run on this host holds of them. A record that cannot be read costs only that."""
    problems: list[Problem] = []
    recorded = _read(paths, problems)
    try:
        supervisor = Identity.from_json(recorded.get("supervisor"))
        here = recorded if supervisor is None or supervisor.here else {}
        return _gpus_alone(_gpus(_processes(here), here, environ), problems)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return _gpus_alone(_gpus([], {}, environ), [_damage(paths, error)])


def _gpus_alone(found: GpuReport, problems: list[Problem]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "ok": not found.missing and not found.problems,
        "gpus": found.gpus_json(),
        "driver": found.driver_json(),
        "distribution": found.distribution_json(),
        "problems": [*problems, *found.problems],
        "error": found.missing,
    }


def _damage(paths: RunPaths, error: Exception) -> Problem:
    return {"code": "damaged-file", "message": f"{paths.state} is damaged: {error!r}", "fix": move_away(paths.state)}


def _read(paths: RunPaths, problems: list[Problem]) -> dict[str, Any]:
    try:
        value = read_json(paths.state)
    except OpsError as error:
        problems.append({"code": error.code, "message": error.message, "fix": error.fix})
        return {}
    if isinstance(value, dict) and isinstance(value.get("schema"), int) and value["schema"] > SCHEMA:
        problems.append({"code": "newer-state", "message": f"{paths.state} was written by a newer version", "fix": "Use the version that started the service."})
        return {}
    if isinstance(value, dict) and value.get("state") in list(State):
        return value
    if value is not None:
        problems.append({"code": "damaged-file", "message": f"{paths.state} holds no state", "fix": move_away(paths.state)})
    return {}


def _processes(recorded: dict[str, Any]) -> list[dict[str, Any]]:
    """The living processes of each program, the workers with their rank, as the process titles tell it."""
    found = []
    for program in recorded.get("programs", []):
        leader = Identity.from_json(program.get("identity"))
        for member in process.session_members(leader) if leader else []:
            title = process.command_line(member.pid)
            worker = RANK.search(title) if title.startswith("VLLM::") else None
            found.append(
                {
                    "role": "worker" if worker else program["role"],
                    "pid": member.pid,
                    "rank": int(worker[1] or 0) if worker else None,
                    "rss_bytes": process.resident_bytes(member.pid) or 0,
                    "alive": True,
                }
            )
    return found


def _taken_back(change: dict[str, Any] | None, state: State) -> list[Problem]:
    """Settings that were asked for and are not in force, until the next restart."""
    if not change or not change["taken_back"] or state in ENDED:
        return []
    asked = " ".join(f"{key}={text['to']}" for key, text in change["settings"].items())
    error = change["taken_back"]
    return [{"code": "settings-taken-back", "message": f"It did not start with {asked} and went back: {error['message']}", "fix": error["fix"]}]


def _media(recorded: dict[str, Any], alive: bool) -> dict[str, Any] | None:
    media = recorded.get("media")
    state = next((program["state"] for program in recorded.get("programs", []) if program["role"] == "media"), State.STOPPED.value)
    return {"state": state if alive else State.STOPPED.value, "url": media["url"], "root": media["root"]} if media else None


def _slurm(allocation: dict[str, Any] | None) -> dict[str, Any] | None:
    if not allocation:
        return None
    end = allocation.get("ends_at")
    return {**allocation, "seconds_left": round(-clock.seconds_since(end)) if end else None}
