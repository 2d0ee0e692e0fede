"""``doctor``: what a start would check."""

from __future__ import annotations

import os
import shutil

import click

from qwen_fp8_ops.cli.common import Call, shared_options
from qwen_fp8_ops.errors import ExitCode

WIDEST = 120


@click.command(epilog="Examples:\n\n\b\n  qwen-fp8 doctor\n  qwen-fp8 doctor --profile demo --json\n  qwen-fp8 doctor --codes")
@click.option("--codes", is_flag=True, help="List every code, and what it is about; check nothing.")
@shared_options
def doctor(call: Call, codes: bool) -> int:
    """Check everything that a start would check, and start nothing. Exit code 4 when a start would be refused."""
    from qwen_fp8_ops.plan.situation import plan_here
    from qwen_fp8_ops.preflight.checks import CODES, Subject, run_checks
    from qwen_fp8_ops.preflight.finding import verdict
    from qwen_fp8_ops.report.findings_text import render_codes, render_findings

    width = min(shutil.get_terminal_size().columns, WIDEST)
    if codes:
        call.give({"schema": 1, "ok": True, "codes": CODES}, render_codes(width))
        return ExitCode.DONE
    plan = plan_here(call.configuration(), call.paths, os.environ)
    findings = run_checks(Subject(plan, call.paths, os.environ))
    judged = verdict(findings)
    call.give(
        {"schema": 1, "ok": judged != "fail", "verdict": judged, "findings": [finding.as_json() for finding in findings]}, render_findings(findings, width)
    )
    return ExitCode.PREFLIGHT if judged == "fail" else ExitCode.DONE
