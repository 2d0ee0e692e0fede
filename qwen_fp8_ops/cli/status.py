"""``status``: what runs, how it does, and what is wrong."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any

import click

from qwen_fp8_ops.cli.common import Call, shared_options
from qwen_fp8_ops.errors import ExitCode

WATCH_SECONDS = 2.0


@click.command(
    epilog="Examples:\n\n\b\n  qwen-fp8 status\n  qwen-fp8 status --watch\n  qwen-fp8 status --json | jq .state\n  qwen-fp8 status --prometheus > /var/lib/node_exporter/qwen_fp8.prom"
)
@click.option("--watch", is_flag=True, help="Show it again every 2 s until Ctrl+C.")
@click.option("--prometheus", is_flag=True, help="Print metrics in Prometheus' text format; the exit code is 0 whatever the state, which is one of them.")
@click.option("--job", metavar="ID", help="A submitted service, from any node that sees its folder; SLURM is asked for the job.")
@shared_options
def status(call: Call, watch: bool, prometheus: bool, job: str | None) -> int:
    """Show the state of the service. Exit code 0 when it serves, 3 when it does not."""
    from qwen_fp8_ops.report.status import collect

    if watch + prometheus + call.speak_json > 1:
        raise click.UsageError("--watch, --prometheus and --json are three ways to show it; choose one.")
    if job:
        from qwen_fp8_ops.cli.job_status import job_status

        if watch or prometheus:
            raise click.UsageError("--job goes with --json only.")
        return job_status(call, job)
    if watch:
        return _watch(call)
    found = collect(call.paths)
    if prometheus:
        from qwen_fp8_ops.report.prometheus import render_prometheus

        print(render_prometheus(found))
        return ExitCode.DONE
    call.give(found, "" if call.speak_json else _text(found))
    return ExitCode.DONE if found["ok"] else ExitCode.NOT_RUNNING


def _text(found: dict[str, Any]) -> str:
    from qwen_fp8_ops.report.screen import Screen
    from qwen_fp8_ops.report.text import render_status

    return render_status(found, Screen.of(sys.stdout))


def _watch(call: Call) -> int:
    from qwen_fp8_ops.report.status import collect

    try:
        while True:
            text = _text(collect(call.paths))
            print(_drawn(text) if sys.stdout.isatty() else text, flush=True)
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        return ExitCode.DONE


def _drawn(text: str) -> str:
    """Over what was drawn before: home, each line cleared behind its text, the rest of the screen cleared. No flicker, and it stays
    when we leave. What is longer or wider than the screen would scroll it, and is cut.
    """
    columns, rows = shutil.get_terminal_size()
    lines = [line[:columns] for line in text.splitlines()[: rows - 1]]
    return "\033[H" + "\n".join(f"{line}\033[K" for line in lines) + "\033[J"
