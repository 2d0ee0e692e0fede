"""``gpus``: who holds the memory of each GPU, and how the GPUs do. Works without a service."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from qwen_fp8_ops.cli.common import Call, shared_options
from qwen_fp8_ops.errors import ExitCode


@click.command(
    epilog="Examples:\n\n\b\n  qwen-fp8 gpus\n  qwen-fp8 gpus --json | jq '.gpus[] | {index, own_bytes, foreign_bytes}'\n  COLUMNS=160 qwen-fp8 gpus > gpus.txt"
)
@shared_options
def gpus(call: Call) -> int:
    """Show the GPUs: whose memory is whose, and what is wrong. With a service running, what each rank uses its memory for.

    Exit code 0 when all is well, 1 when a GPU of ours has a problem (lost, ECC, row remapping, slowed down by its hardware), 3 when no NVIDIA driver answers.
    """
    from qwen_fp8_ops.report.status import collect_for_gpus

    found = collect_for_gpus(call.paths, os.environ)
    call.give(found, "" if call.speak_json else _text(found))
    if found["error"]:
        return ExitCode.NOT_RUNNING
    return ExitCode.DONE if found["ok"] else ExitCode.FAILED


def _text(found: dict[str, Any]) -> str:
    from qwen_fp8_ops.report.gpu_text import render_gpus
    from qwen_fp8_ops.report.screen import Screen
    from qwen_fp8_ops.report.text import problem_lines

    told = [found["error"], *found["problems"]]
    return "\n".join([*render_gpus(found, Screen.of(sys.stdout)), *(line for problem in told if problem for line in problem_lines(problem))])
