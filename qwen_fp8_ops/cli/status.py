"""``status``: what runs, how it does, and what is wrong."""

from __future__ import annotations

import sys
import time

import click

from qwen_fp8_ops.cli.common import Call, shared_options
from qwen_fp8_ops.errors import ExitCode

WATCH_SECONDS = 2.0


@click.command(epilog="Examples:\n\n\b\n  qwen-fp8 status\n  qwen-fp8 status --watch\n  qwen-fp8 status --json | jq .state")
@click.option("--watch", is_flag=True, help="Show it again every 2 s until Ctrl+C.")
@shared_options
def status(call: Call, watch: bool) -> int:
    """Show the state of the service. Exit code 0 when it serves, 3 when it does not."""
    from qwen_fp8_ops.report.status import collect
    from qwen_fp8_ops.report.text import render_status

    if watch and call.speak_json:
        raise click.UsageError("--watch shows text; for JSON call `status --json` again and again.")
    if watch:
        return _watch(call)
    found = collect(call.paths)
    call.give(found, render_status(found))
    return ExitCode.DONE if found["ok"] else ExitCode.NOT_RUNNING


def _watch(call: Call) -> int:
    from qwen_fp8_ops.report.status import collect
    from qwen_fp8_ops.report.text import render_status

    try:
        while True:
            text = render_status(collect(call.paths))
            # Home, each line cleared behind its text, the rest of the screen cleared: no flicker, and it stays when we leave.
            print("\033[H" + "\n".join(f"{line}\033[K" for line in text.splitlines()) + "\033[J" if sys.stdout.isatty() else text, flush=True)
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        return ExitCode.DONE
