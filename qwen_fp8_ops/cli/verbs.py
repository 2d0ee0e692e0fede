"""The list of verbs. Each is imported when it is called, so that one verb never pays for another's imports."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from qwen_fp8_ops.cli.common import nobody_reads
from qwen_fp8_ops.errors import ExitCode

VERBS: dict[str, str] = {
    "download": "Fetch the model's weights.",
    "verify": "Check the model's files, every byte of them, and repair what is bad.",
    "plan": "Say whether it fits in memory, with all numbers, and what to change.",
    "doctor": "Check everything a start would check, start nothing.",
    "start": "Start the service and watch it.",
    "stop": "Drain and stop the service, and prove that it is gone.",
    "restart": "Restart the engine, with other settings if asked; the media server stays.",
    "status": "Show state, load, memory and problems.",
    "gpus": "Show whose memory is whose on each GPU, and what is wrong with them.",
    "logs": "Show what the engine, the media server or the supervisor wrote.",
    "submit": "Run the service as a SLURM batch job.",
    "jobs": "List, stop or read the logs of submitted services.",
    "support-bundle": "Put everything that tells what is wrong into one file, without secrets.",
    "config": "Show every setting and where it came from.",
    "chat": "Ask the model, with images and videos.",
    "caption": "Caption every image of a folder.",
    "qa": "Ask the questions of a file about their images, and count the right answers.",
    "media": "Run the media server alone.",
}


class LazyVerbs(click.Group):
    """A group whose verb ``x-y`` is the object ``x_y`` of ``qwen_fp8_ops.cli.x_y``."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            nobody_reads()
            return ExitCode.DONE  # not a failure, of which click would make an exit 1

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return command_of(name) if name in VERBS else None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(f"{error.format_message()} The verbs are {', '.join(VERBS)}.", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


def command_of(verb: str) -> click.Command:
    module = verb.replace("-", "_")
    command: click.Command = getattr(importlib.import_module(f"qwen_fp8_ops.cli.{module}"), module)
    return command
