"""``stop``: drain, end, and prove it."""

from __future__ import annotations

from dataclasses import asdict

import click

from qwen_fp8_ops.cli.common import Call, shared_options
from qwen_fp8_ops.errors import ExitCode


@click.command(epilog="Examples:\n\n\b\n  ./stop_service.sh\n  qwen-fp8 stop --force")
@click.option("--force", is_flag=True, help="Do not wait for running requests; kill what does not react.")
@shared_options
def stop(call: Call, force: bool) -> int:
    """Stop the service: let running requests finish, end every process, and say what could not be confirmed to be gone.

    Exit code 0 also when nothing was running.
    """
    from qwen_fp8_ops.report.console import Console
    from qwen_fp8_ops.report.words import duration
    from qwen_fp8_ops.service.outcome import leftovers_error
    from qwen_fp8_ops.service.stop import stop as stop_service

    console = Console()
    try:
        stopped = stop_service(call.paths, console.say, console.progress, force=force)
    finally:
        console.close()
    if stopped.leftovers:
        raise leftovers_error(stopped.leftovers)
    text = f"Stopped in {duration(stopped.seconds)}: every process is gone, the ports are free." if stopped.was_running else "Nothing was running."
    call.give({"schema": 1, "ok": True, **asdict(stopped)}, text)
    return ExitCode.DONE
