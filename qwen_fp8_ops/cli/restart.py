"""``restart``: the running service takes up other settings, or the same once more; its media server stays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qwen_fp8_ops.cli.common import Call, shared_options
from qwen_fp8_ops.cli.force import force_option
from qwen_fp8_ops.errors import ExitCode

if TYPE_CHECKING:
    from qwen_fp8_ops.plan.launch import LaunchPlan
    from qwen_fp8_ops.preflight.finding import Finding


@click.command(
    epilog="Examples:\n\n\b\n  qwen-fp8 restart\n  qwen-fp8 restart --set MAX_NUM_SEQS=8\n"
    "  qwen-fp8 restart --engine --set MAX_NUM_SEQS=8 --set MAX_MODEL_LEN=65536"
)
@click.option(
    "--engine", "engine_only", is_flag=True, help="Nothing but the engine: refuse settings that need more; keep weights in GPU memory (WEIGHT_CACHE=on)."
)
@force_option
@shared_options
def restart(call: Call, engine_only: bool, force: tuple[str, ...]) -> int:
    """Drain the engine, end it and start it again with the settings as they are now.

    Profiles, --set values and --force codes of the start are kept; what is given now is added. Wrong settings are refused before
    anything stops. If the service does not start with the new ones, it goes back to those of before.
    """
    from qwen_fp8_ops.outside.files import read_json
    from qwen_fp8_ops.plan.launch import LaunchPlan
    from qwen_fp8_ops.service import detach
    from qwen_fp8_ops.service.changeover import Request
    from qwen_fp8_ops.service.start import refuse

    supervisor = detach.running_supervisor(call.paths)
    old = LaunchPlan.from_json(read_json(call.paths.plan))
    plan = _next_plan(call, old, force, engine_only=engine_only)
    findings = _findings(call, old, plan)
    refuse(findings)
    console = call.console(plan.settings)
    try:
        for finding in findings:
            if finding.level == "warn":
                console.say(finding.as_text(), level="warning")
        state = detach.restart(Request(plan, keep_weights=engine_only), supervisor, call.paths, console)
    finally:
        console.close()
    console.ready(state, state["ready_seconds"])
    return ExitCode.DONE


def _next_plan(call: Call, old: LaunchPlan, force: tuple[str, ...], *, engine_only: bool) -> LaunchPlan:
    from qwen_fp8_ops.plan.scope import require_engine_alone
    from qwen_fp8_ops.plan.situation import plan_here

    call.profiles = call.profiles or list(old.invocation.profiles)
    call.overrides = [*old.invocation.overrides, *call.overrides]
    call.config_file = call.config_file or (Path(old.invocation.config_file) if old.invocation.config_file else None)
    configuration = call.configuration()
    plan = plan_here(configuration, call.paths, os.environ, like=old if engine_only else None).forcing([*old.invocation.forced, *force])
    if engine_only:
        require_engine_alone(old, plan, configuration)
    return plan


def _findings(call: Call, old: LaunchPlan, plan: LaunchPlan) -> tuple[Finding, ...]:
    """All that a start would find, but for the ports: those that we hold ourselves are no obstacle."""
    from qwen_fp8_ops.preflight.checks import Subject, run_checks
    from qwen_fp8_ops.preflight.finding import forced

    ours = {f"{program.name}-port" for program in old.programs if any(program.port == new.port and program.name == new.name for new in plan.programs)}
    findings = forced(run_checks(Subject(plan, call.paths, os.environ)), plan.invocation.forced)
    return tuple(finding for finding in findings if finding.code not in ours)
