"""``qwen-fp8``: one file per verb; this one finds the verb, and turns what went wrong into words and an exit code."""

from __future__ import annotations

import json
import os
import sys

import click

from qwen_fp8_ops import __version__
from qwen_fp8_ops.cli.common import Call, shared_options
from qwen_fp8_ops.cli.stdout import CANNOT_WRITE, explain_stdout
from qwen_fp8_ops.cli.verbs import LazyVerbs
from qwen_fp8_ops.errors import ExitCode, OpsError


@click.command(
    cls=LazyVerbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Examples:\n\n\b\n  qwen-fp8 start --profile demo --detach\n  qwen-fp8 status\n  qwen-fp8 chat 'What is this?' --image cat.png\n  qwen-fp8 stop",
)
@click.version_option(__version__, prog_name="qwen-fp8")
@shared_options
def qwen_fp8(call: Call) -> None:
    """Run Qwen3-VL-235B-A22B-Thinking-FP8 on this node: start, watch, use and stop the service."""


def main() -> None:
    """Entry point of the ``qwen-fp8`` command and of ``python -m qwen_fp8_ops``."""
    _open_closed_streams()
    explain_stdout()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and give its exit code; every explained failure is told here and only here."""
    speak_json = "--json" in arguments
    try:
        result = qwen_fp8.main(args=arguments, prog_name="qwen-fp8", standalone_mode=False)
        return int(result) if isinstance(result, int) else ExitCode.DONE
    except OpsError as error:
        _tell(error, speak_json and error.code != CANNOT_WRITE)
        return error.exit_code
    except click.UsageError as error:
        fix = f"See `{error.ctx.command_path} --help`." if error.ctx else ""
        _tell(OpsError(error.format_message(), code="usage", fix=fix), speak_json)
        return ExitCode.USAGE
    except click.ClickException as error:
        _tell(OpsError(error.format_message()), speak_json)
        return ExitCode.FAILED
    except (click.Abort, KeyboardInterrupt):
        _tell(OpsError("Interrupted.", code="interrupted"), speak_json)
        return ExitCode.INTERRUPTED


def _open_closed_streams() -> None:
    """Where a stream was closed by whoever called us (``2>&-``), the next file we open would take its place, and be written into."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 # it stays


def _tell(error: OpsError, speak_json: bool) -> None:
    if speak_json:
        print(json.dumps({"schema": 1, "ok": False, "error": error.as_json()}, ensure_ascii=False))
        return
    print(f"Error: {error.message}", file=sys.stderr)
    for line in error.fix.splitlines():
        print(f"  {line}", file=sys.stderr)
