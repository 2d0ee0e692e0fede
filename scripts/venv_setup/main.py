"""Command line of the set-up: one at a time, only what is missing, every failure with its remedy."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from qwen_fp8_ops.errors import ExitCode, OpsError
from qwen_fp8_ops.outside.lock import acquire, release
from qwen_fp8_ops.outside.process import Identity, identify
from venv_setup import environment, stamp
from venv_setup.pip import Pip
from venv_setup.project import CORE, ENGINES, Project
from venv_setup.steps import TORCH_INDEX, Installer

ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.5
TOLD_EVERY_SECONDS = 30


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    try:
        project = Project.read(ROOT)
        parser = argparse.ArgumentParser(prog="setup_venv.py", description="Make or update .venv; what it has already stays.")
        parser.add_argument("--extra", action="append", choices=[CORE, *project.extras], default=[], help="what to install beside the core; may be repeated")
        set_up(project, (CORE, *parser.parse_args(arguments).extra))
    except OpsError as error:
        say("\n  ".join([f"Error: {error.message}", *error.fix.splitlines()]))
        return error.exit_code
    except OSError as error:
        say(f"Error: {error}")
        say("  Check space and rights: df -h . ; ls -ld . .venv .cache")
        return ExitCode.FAILED
    except KeyboardInterrupt:
        say("\nInterrupted. The next run goes on where this one stopped.")
        return ExitCode.INTERRUPTED
    return ExitCode.DONE


def set_up(project: Project, extras: tuple[str, ...]) -> None:
    """Install what is missing; returns at once when nothing is.

    Raises:
        OpsError: it cannot be done.
    """
    venv, cache = project.root / ".venv", project.root / ".cache"
    cache.mkdir(exist_ok=True)
    me = identify(os.getpid())
    assert me is not None, "a running process has an identity"
    _wait_for_turn(cache / "setup.lock", me)
    try:
        before = stamp.read(venv)
        wanted = tuple(dict.fromkeys((*(before.extras if before else ()), *extras)))
        engines = [engine for engine in ENGINES if engine in wanted]
        if len(engines) > 1:
            raise OpsError(
                f"{venv} holds the engine for {engines[0] if engines[0] in (before.extras if before else ()) else engines[1]}s, and only one fits",
                code="setup-refused",
                fix=f"For the other engine use a second clone, or remove this environment: rm -r '{venv}'",
            )
        if before and before.satisfies(project, wanted):
            if before.pyproject != project.text:
                stamp.write(venv, project, before.extras, complete=True)
            return
        _install(project, before, wanted, venv, cache)
    finally:
        release(cache / "setup.lock", me)


def _install(project: Project, before: stamp.Stamp | None, wanted: tuple[str, ...], venv: Path, cache: Path) -> None:
    began = time.monotonic()
    temporary = cache / "setup-downloads"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    say(f"Setting up {venv} for {', '.join(wanted)}{'' if before is None else ': ' + _why(before, project, wanted)}")
    python = environment.make(venv, say)
    stamp.write(venv, project, before.extras if before else (), complete=False)
    site = environment.packages(venv)
    for name in environment.heal(site):
        say(f"      removed {name}, which an interrupted set-up left half done")
    pip = Pip(python, project.root, cache / "setup.log", temporary, os.environ, say)
    Installer(project, pip, site, os.environ.get("QWEN_FP8_TORCH_INDEX") or TORCH_INDEX, say).install(wanted)
    shutil.rmtree(temporary, ignore_errors=True)
    stamp.write(venv, project, wanted, complete=True)
    say(f"Set up in {time.monotonic() - began:.0f} s.")


def _why(before: stamp.Stamp, project: Project, wanted: tuple[str, ...]) -> str:
    if not before.complete:
        return "an earlier set-up did not finish"
    if before.checkout != str(project.root):
        return f"it was made for {before.checkout}"
    new = [extra for extra in wanted if extra not in before.extras]
    return f"adding {', '.join(new)}" if new else "pyproject.toml asks for other packages than before"


def _wait_for_turn(path: Path, me: Identity) -> None:
    """Take the lock; say for whom we wait.

    Raises:
        OpsError: the lock cannot be written.
    """
    told = None
    while (holder := acquire(path, me)) is not None:
        if told is None or time.monotonic() - told >= TOLD_EVERY_SECONDS:
            remedy = "" if holder.here else f"; if it is gone, rm '{path}'"
            say(f"Another set-up is at work (pid {holder.pid} on {holder.host}); waiting for it{remedy}")
            told = time.monotonic()
        time.sleep(POLL_SECONDS)
