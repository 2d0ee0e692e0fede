"""``logs``: what the engine, the media server, the supervisor and the gate wrote."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

import click

from qwen_fp8_ops.cli.common import Call, shared_options
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import ExitCode, NotRunningError, OpsError
from qwen_fp8_ops.report.event_text import EventText
from qwen_fp8_ops.service.log_files import KEPT, Tail, last_lines

POLL_SECONDS = 0.2
MOST_BYTES = 64 << 20
"""The end of a file that is looked at: enough for any number of lines that a person asks for."""

Render = Callable[[str], Iterable[str]]


def _as_it_is(line: str) -> list[str]:
    return [line]


@click.command(epilog="Examples:\n\n\b\n  qwen-fp8 logs -f\n  qwen-fp8 logs -n 200 --attempt 1\n  qwen-fp8 logs --events")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written, until Ctrl+C.")
@click.option("-n", "--lines", "count", type=click.IntRange(0, 1_000_000), default=50, metavar="N", help="How many of the last lines; default 50.")
@click.option("--media", is_flag=True, help="The media server's log.")
@click.option("--events", is_flag=True, help="The history of the run: states, starts, deaths and their causes.")
@click.option("--audit", is_flag=True, help="One JSON line for each request.")
@click.option("--weight-cache", is_flag=True, help="What the weight cache wrote (WEIGHT_CACHE=on).")
@click.option("--supervisor", is_flag=True, help="What a detached supervisor said.")
@click.option("--attempt", type=click.IntRange(1, KEPT), metavar="N", help="An earlier file; 1 is the latest of them.")
@shared_options
def logs(call: Call, follow: bool, count: int, attempt: int | None, **which: bool) -> int:
    """Show the last lines of the engine's log, or of another one."""
    if sum(which.values()) > 1:
        asked = [f"--{name.replace('_', '-')}" for name, wanted in which.items() if wanted]
        raise click.UsageError(f"One log at a time: {', '.join(asked)}.")
    if follow and (call.speak_json or attempt):
        raise click.UsageError("--follow does not go with --json, nor with --attempt: an earlier file does not grow.")
    path = existing(_path(call.paths, which), attempt)
    return show(call, path, follow=follow, count=count, render=EventText(datetime.now().astimezone().date()).render if which["events"] else _as_it_is)


def show(call: Call, path: Path, *, follow: bool, count: int, render: Render = _as_it_is) -> int:
    """The last lines of a file, then, with ``follow``, what is added to it."""
    if follow:
        return _follow(path, count, render)
    lines = last_lines(path, count, most_bytes=MOST_BYTES) if count else []
    if call.speak_json:
        call.give({"schema": 1, "ok": True, "file": str(path), "lines": lines}, "")
    else:
        _print(lines, render)
    return ExitCode.DONE


def _path(paths: RunPaths, which: dict[str, bool]) -> Path:
    files = {
        "media": paths.media_log,
        "events": paths.events,
        "audit": paths.audit,
        "weight_cache": paths.weight_cache_log,
        "supervisor": paths.supervisor_log,
    }
    return next((files[name] for name, asked in which.items() if asked), paths.service_log)


def existing(path: Path, attempt: int | None) -> Path:
    """
    Raises:
        NotRunningError: nothing was written yet.
        OpsError: there is no such earlier file, or it cannot be read.
    """
    wanted = path.with_name(f"{path.name}.{attempt}") if attempt else path
    try:
        with wanted.open("rb"):
            return wanted
    except FileNotFoundError:
        if path.exists():
            earlier = [str(number) for number in range(1, KEPT + 1) if path.with_name(f"{path.name}.{number}").exists()]
            there = f"there is {', '.join(earlier)}" if earlier else "there is none"
            raise OpsError(
                f"No earlier file {attempt} of {path.name}: {there}", code="no-such-attempt", fix="Without --attempt the present file is shown."
            ) from None
        if path.parent.exists() and any(path.parent.iterdir()):
            raise NotRunningError(
                f"Nothing wrote {path} so far", code="no-log", fix="See `qwen-fp8 status`, and `qwen-fp8 logs --events` for what was started."
            ) from None
        raise NotRunningError(f"Nothing was started in {path.parent.parent} so far: there is no {path}", code="no-log", fix="./start_service.sh") from None
    except OSError as error:
        raise OpsError(f"{wanted} cannot be read: {error.strerror}", code="unreadable-file", fix=f"ls -ld '{wanted}'") from error


def _follow(path: Path, count: int, render: Render) -> int:
    tail = Tail(path)
    try:
        _print(tail.skip(count), render)
        while True:
            _print(tail.lines(), render)
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        return ExitCode.DONE


def _print(lines: Iterable[str], render: Render) -> None:
    texts = [text for line in lines for text in render(line)]
    if texts:
        print("\n".join(texts), flush=True)
