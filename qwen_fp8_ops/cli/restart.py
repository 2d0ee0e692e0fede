"""``restart``: the running service takes up the current settings with a new engine; its media server stays."""

from __future__ import annotations

import os
from pathlib import Path

import click

from qwen_fp8_ops.cli.common import Call, shared_options
from qwen_fp8_ops.cli.force import force_option
from qwen_fp8_ops.errors import ExitCode


@click.command(epilog="Examples:\n\n\b\n  qwen-fp8 restart\n  qwen-fp8 restart --set MAX_NUM_SEQS=8")
@force_option
@shared_options
def restart(call: Call, force: tuple[str, ...]) -> int:
    """Drain the engine, end it and start it again with the settings as they are now.

    The profiles and --set values of the start are kept unless new ones are given. Wrong settings are refused before anything stops.
    """
    from qwen_fp8_ops.outside.files import read_json
    from qwen_fp8_ops.plan.launch import LaunchPlan
    from qwen_fp8_ops.plan.situation import plan_here
    from qwen_fp8_ops.preflight.checks import Subject, run_checks
    from qwen_fp8_ops.preflight.finding import forced
    from qwen_fp8_ops.service import detach
    from qwen_fp8_ops.service.start import refuse

    supervisor = detach.running_supervisor(call.paths)
    old = LaunchPlan.from_json(read_json(call.paths.plan))
    call.profiles = call.profiles or list(old.invocation.profiles)
    call.overrides = [*old.invocation.overrides, *call.overrides]
    call.config_file = call.config_file or (Path(old.invocation.config_file) if old.invocation.config_file else None)
    plan = plan_here(call.configuration(), call.paths, os.environ)
    # The ports that we hold ourselves are no obstacle.
    ours = {f"{program.name}-port" for program in old.programs if any(program.port == new.port and program.name == new.name for new in plan.programs)}
    findings = tuple(finding for finding in forced(run_checks(Subject(plan, call.paths, os.environ)), force) if finding.code not in ours)
    refuse(findings)
    console = call.console(plan.settings)
    try:
        for finding in findings:
            if finding.level == "warn":
                console.say(finding.as_text(), level="warning")
        state = detach.restart(plan, supervisor, call.paths, console)
    finally:
        console.close()
    console.ready(state, state["ready_seconds"])
    return ExitCode.DONE
