"""``verify``: is the model folder what it should be, and put right what is not."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from qwen_fp8_ops.cli.common import Call, shared_options
from qwen_fp8_ops.errors import ExitCode


@click.command(
    epilog="Examples:\n\n\b\n  qwen-fp8 verify --fast\n  qwen-fp8 verify --path /scratch/models/qwen3-vl\n  qwen-fp8 verify --repair\n  qwen-fp8 verify --json | jq -r '.bad[].file'"
)
@click.option("--fast", is_flag=True, help="Look at names, sizes, times and headers only: under a second.")
@click.option("--repair", is_flag=True, help="Fetch what is bad, and only that.")
@click.option("--path", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Another folder than MODEL_PATH.")
@shared_options
def verify(call: Call, fast: bool, repair: bool, folder: Path | None) -> int:
    """Check the model's files: their headers, their sizes, and by default the sha256 of every byte. Exit code 1 when something is bad."""
    from qwen_fp8_ops.report.console import Console
    from qwen_fp8_ops.report.verify_text import HashingLine, render_verdict
    from qwen_fp8_ops.weights.reference import Origin
    from qwen_fp8_ops.weights.repair import Repaired, mend
    from qwen_fp8_ops.weights.verify import VERIFY, verify_fast
    from qwen_fp8_ops.weights.verify_full import verify_full

    settings = call.configuration().settings
    command = f"{VERIFY} --path {shlex.quote(str(folder))}" if folder else VERIFY
    folder = Path(os.path.abspath(folder)) if folder else settings.folder(settings.model_path, call.paths.home)
    origin = None if settings.is_demo_model else Origin(settings.model_id, settings.model_revision)
    console, line = Console(), HashingLine()
    repaired: tuple[Repaired, ...] = ()
    try:
        heard = lambda progress: console.progress(line.text(progress), progress.fraction)  # noqa: E731
        verdict = verify_fast(folder, command) if fast else verify_full(folder, origin, heard, command)
        if repair and not verdict.ok:
            verdict, repaired = mend(verdict, origin, console.say, heard, command=command)
    finally:
        console.close()
    failed = [{"file": done.file, **done.failure.as_json()} for done in repaired if done.failure]
    value = {**verdict.as_json(), "repaired": [done.file for done in repaired if not done.failure], "failed": failed}
    call.give(value, render_verdict(verdict, repaired))
    return ExitCode.DONE if verdict.ok else ExitCode.FAILED
