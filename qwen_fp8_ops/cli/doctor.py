"""``doctor``: what a start would check."""

from __future__ import annotations

import os

import click

from qwen_fp8_ops.cli.common import Call, shared_options
from qwen_fp8_ops.errors import ExitCode

MARKS = {"pass": "ok  ", "warn": "warn", "fail": "FAIL"}


@click.command(epilog="Examples:\n\n\b\n  qwen-fp8 doctor\n  qwen-fp8 doctor --profile demo --json")
@shared_options
def doctor(call: Call) -> int:
    """Check everything that a start would check, and start nothing. Exit code 4 when a start would be refused."""
    from qwen_fp8_ops.plan.situation import plan_here
    from qwen_fp8_ops.preflight.checks import Subject, run_checks
    from qwen_fp8_ops.preflight.finding import verdict

    plan = plan_here(call.configuration(), call.paths, os.environ)
    findings = run_checks(Subject(plan, call.paths, os.environ))
    judged = verdict(findings)
    lines = []
    for finding in findings:
        lines.append(f"{MARKS[finding.level]}  {finding.code:<18} {finding.seen}")
        if finding.level != "pass":
            lines += [f"      {'':<18} {line}" for line in finding.fix.splitlines()]
    lines.append({"pass": "A start would go ahead.", "warn": "A start would go ahead, with warnings.", "fail": "A start would be refused."}[judged])
    call.give({"schema": 1, "ok": judged != "fail", "verdict": judged, "findings": [finding.as_json() for finding in findings]}, "\n".join(lines))
    return ExitCode.PREFLIGHT if judged == "fail" else ExitCode.DONE
