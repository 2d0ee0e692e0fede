"""``start``: the supervisor in the foreground, or with --detach in the background."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from qwen_fp8_ops.cli.common import Call, shared_options
from qwen_fp8_ops.cli.force import force_option
from qwen_fp8_ops.errors import ExitCode

if TYPE_CHECKING:
    from qwen_fp8_ops.config.settings import Settings
    from qwen_fp8_ops.plan.launch import LaunchPlan


@click.command(
    epilog="Examples:\n\n\b\n  ./start_service.sh --profile demo\n  qwen-fp8 start --detach --profile throughput --profile fast\n  qwen-fp8 start --dry-run --set MAX_MODEL_LEN=65536"
)
@click.option("--detach", is_flag=True, help="Run in the background; returns when the service is ready.")
@click.option("--dry-run", is_flag=True, help="Print the exact commands and start nothing; with --json the whole plan.")
@force_option
@shared_options
def start(call: Call, detach: bool, dry_run: bool, force: tuple[str, ...]) -> int:
    """Start the service: check, start the media server and the engine, watch and restart them.

    Ctrl+C drains and stops; a second Ctrl+C stops at once.
    """
    from qwen_fp8_ops.plan.launch import describe
    from qwen_fp8_ops.plan.situation import plan_here

    configuration = call.configuration()
    plan = plan_here(configuration, call.paths, os.environ)
    if dry_run:
        call.give({"ok": True, **plan.as_json()}, describe(plan))
        return ExitCode.DONE
    return _start_detached(call, plan.settings, force) if detach else _start_here(call, plan, force)


def _start_here(call: Call, plan: LaunchPlan, force: tuple[str, ...]) -> int:
    from qwen_fp8_ops.service.start import start as start_service

    console = call.console(plan.settings)
    try:
        outcome = start_service(plan, call.paths, console, os.environ, force=force)
    finally:
        console.close()
    if outcome.error:
        raise outcome.error
    console.say("Stopped: every process is gone, the ports are free." if outcome.was_ready else "Interrupted; nothing is left running.")
    return outcome.exit_code


def _start_detached(call: Call, settings: Settings, force: tuple[str, ...]) -> int:
    from qwen_fp8_ops.service.detach import start_detached

    console = call.console(settings)
    forcing = [word for code in force for word in ("--force", code)]
    try:
        state = start_detached([sys.executable, "-m", "qwen_fp8_ops", *call.as_arguments(), "start", *forcing], call.paths, console)
    finally:
        console.close()
    console.ready(state, state["ready_seconds"])
    return ExitCode.DONE
