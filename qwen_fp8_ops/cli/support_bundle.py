"""``support-bundle``: one file for whoever is to help."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qwen_fp8_ops.cli.common import Call, shared_options

if TYPE_CHECKING:
    from qwen_fp8_ops.report.bundle.archive import Bundle


@click.command(
    "support-bundle",
    epilog="Examples:\n\n\b\n  qwen-fp8 support-bundle\n  qwen-fp8 support-bundle --last 500 --output /tmp/bundle.tar.gz\n  tar --wildcards -xzOf FILE '*/README.txt'",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Where to write it, a file or a folder; default: a new file in the current folder."
)
@click.option(
    "--last", "last_lines", type=click.IntRange(1, 1_000_000), default=2000, show_default=True, metavar="N", help="How many of the last lines of each log."
)
@shared_options
def support_bundle(call: Call, output: Path | None, last_lines: int) -> None:
    """Put everything that tells what is wrong into one .tar.gz: settings, versions, plan, checks, GPUs, SLURM job, logs, events, the kernel's Xid and
    out-of-memory lines. Keys, tokens and passwords are taken out. Works without a running service, and whatever is damaged."""
    from qwen_fp8_ops.report.bundle.archive import write_bundle
    from qwen_fp8_ops.report.bundle.case import Case

    profiles, overrides = tuple(call.profiles), tuple(call.overrides)
    made = write_bundle(Case(call.paths, os.environ, call.folder, call.config_file, profiles, overrides, last_lines), output)
    call.give(made.as_json(), _text(made))


def _text(made: Bundle) -> str:
    lines = [f"{made.file}  ({max(1, made.size_bytes // 1000)} kB, {len(made.members)} files; {sum(made.masked.values())} secrets masked)"]
    lines += [f"  not in it: {problem}" for problem in made.problems]
    return "\n".join([*lines, "Its README.txt says what is inside and what was taken out."])
