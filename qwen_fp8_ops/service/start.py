"""From a plan to a running service: lock, sweep, weights, preflight, supervisor, and everything given back at the end."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import OpsError, PreflightError
from qwen_fp8_ops.outside import lock, process
from qwen_fp8_ops.outside.files import make_folder, read_json, write_text
from qwen_fp8_ops.outside.process import Identity
from qwen_fp8_ops.plan.launch import LaunchPlan
from qwen_fp8_ops.preflight.checks import Subject, media_is_served, run_checks
from qwen_fp8_ops.preflight.finding import Finding, forced
from qwen_fp8_ops.service import orphans, succession
from qwen_fp8_ops.service.devices import confined
from qwen_fp8_ops.service.endpoint import publish, withdraw
from qwen_fp8_ops.service.outcome import Outcome
from qwen_fp8_ops.service.record import Recorder
from qwen_fp8_ops.service.states import State
from qwen_fp8_ops.service.supervisor import Supervisor
from qwen_fp8_ops.service.talk import Talk
from qwen_fp8_ops.slurm import allocation, submit
from qwen_fp8_ops.weights import demo


def start(plan: LaunchPlan, paths: RunPaths, talk: Talk, environ: Mapping[str, str], *, force: Collection[str] = ()) -> Outcome:
    """Run the service until it is stopped.

    Args:
        force: codes of checks whose failure is only a warning, now and when the service is restarted.

    Raises:
        OpsError: it runs already, or its folder refuses to be written.
        PreflightError: a check failed; the message tells every one that did.
    """
    make_folder(paths.run)
    make_folder(paths.logs)
    me = process.identify(os.getpid(), environ.get("SLURM_JOB_ID"))
    assert me is not None
    other = succession.acquire(paths, me)
    if other is not None:
        raise already_running(other, paths)
    try:
        outcome = _run(plan.forcing(force), paths, me, talk, environ)
    finally:
        withdraw(paths)
        lock.release(paths.lock, me)
    if outcome.requeue:
        _requeue(outcome.requeue, talk)
    return outcome


def _requeue(job_id: str, talk: Talk) -> None:
    """The very last thing: SLURM ends this process for it."""
    try:
        submit.requeue(job_id)
    except OpsError as error:
        talk.say(f"Job {job_id} was not requeued: {error.message}", level="error")
    else:
        talk.say(f"Job {job_id} is requeued: SLURM starts it again.")


def already_running(holder: Identity, paths: RunPaths) -> OpsError:
    endpoint = read_json(paths.endpoint) or {}
    where = f"pid {holder.pid}" if holder.here else f"pid {holder.pid} on {holder.host}" + (f", job {holder.job_id}" if holder.job_id else "")
    at = f" at {endpoint['url']}" if "url" in endpoint else ""
    fix = "See `qwen-fp8 status`; stop it with ./stop_service.sh"
    if not holder.here:
        fix = f"Stop it on {holder.host}. If that machine is gone for good: rm '{paths.lock}'"
    return OpsError(f"The service is already running ({where}){at}", code="already-running", fix=fix)


def _run(plan: LaunchPlan, paths: RunPaths, me: Identity, talk: Talk, environ: Mapping[str, str]) -> Outcome:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until the supervisor listens: a stop unwinds, whoever sends it
    process.become_subreaper()
    orphans.make_way(plan, paths, talk.say)
    recorder = Recorder(paths, talk.say)
    recorder.move(State.PREFLIGHT)
    about = {"profile": plan.profile, "model": plan.settings.served_model_name, "url": plan.url, "supervisor": me.as_json()}
    recorder.write(about)
    try:
        job = allocation.current(environ)
        plan = confined(plan, job, environ)
        publish(plan, paths, me, job)
        if plan.owns_media_root:
            make_folder(plan.media_root)
        if plan.settings.is_demo_model:
            make_demo_model(plan, talk)
        findings = forced(run_checks(Subject(plan, paths, environ)), plan.invocation.forced)
        refuse(findings)
        for finding in findings:
            if finding.level == "warn":
                talk.say(finding.as_text(), level="warning")
        supervisor = Supervisor(plan, paths, me, recorder, talk, key=_internal_key(paths), allocation=job)
    except (OpsError, KeyboardInterrupt) as error:
        recorder.move(State.FAILED if isinstance(error, OpsError) else State.STOPPED, str(error))
        facts = {**error.as_json(), "exit_code": int(error.exit_code)} if isinstance(error, OpsError) else None
        recorder.write({**about, "error": facts})
        raise
    return supervisor.run(reuse_media=media_is_served(plan))


def refuse(findings: tuple[Finding, ...]) -> None:
    """
    Raises:
        PreflightError: one or more failed; the first one's code is the error's.
    """
    failed = [finding for finding in findings if finding.level == "fail"]
    if not failed:
        return
    # Each finding keeps its fix beneath it; the last one's is the error's own.
    *others, last = failed
    told = [finding.as_text() for finding in others]
    override = f"To start all the same: {' '.join(f'--force {finding.code}' for finding in failed)}"
    raise PreflightError("\nError: ".join([*told, last.seen]), code=failed[0].code, fix=f"{last.fix}\n{override}")


def make_demo_model(plan: LaunchPlan, talk: Talk) -> None:
    """Build the demo checkpoint, where there is none yet, in a process of its own: this one must not import torch.

    Raises:
        OpsError: the build failed.
    """
    on_cpu = plan.settings.on_cpu
    if demo.is_current(plan.model_path, demo.recipe_for(on_cpu)):
        return
    talk.say(f"Writing the demo checkpoint to {plan.model_path} (once, some seconds) ...")
    command = [sys.executable, "-P", "-m", "qwen_fp8_ops.weights.demo", str(plan.model_path), *([] if on_cpu else ["--fp8"])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise OpsError(f"The demo checkpoint could not be written: {reason[0]}", code="demo-build-failed", fix="python3 scripts/setup_venv.py --extra cpu")


def _internal_key(paths: RunPaths) -> str:
    """A key for this machine's own tools, new at every start, readable by the owner only."""
    key = secrets.token_urlsafe(32)
    write_text(paths.keys, f"supervisor:{key}\n", mode=0o600)
    return key
