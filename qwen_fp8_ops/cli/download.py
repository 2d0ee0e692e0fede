"""``download``: fetch the weights that MODEL_ID names, verified."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qwen_fp8_ops.cli.common import Call, shared_options
from qwen_fp8_ops.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from qwen_fp8_ops.plan.launch import LaunchPlan
    from qwen_fp8_ops.weights.download import Result
    from qwen_fp8_ops.weights.download_plan import DownloadPlan, Request

YES = frozenset({"1", "on", "yes", "true"})


@click.command(
    epilog="Examples:\n\n\b\n  ./download_model.sh\n  ./download_model.sh --dry-run\n  ./download_model.sh --to /scratch/models/qwen3-vl\n"
    "  ./download_model.sh --include '*.json'\n  HF_ENDPOINT=https://mirror.example.org ./download_model.sh"
)
@click.option("--to", "folder", type=click.Path(path_type=Path, file_okay=False), metavar="PATH", help="Folder for the weights; default: MODEL_PATH.")
@click.option("--dry-run", is_flag=True, help="Show the files, their sizes and what is there already; fetch nothing.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Only files that match, as '*.json'; may be repeated.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="No files that match; may be repeated.")
@click.option("--update", is_flag=True, help="Go to the commit that MODEL_REVISION means today; without it a folder stays at its own.")
@click.option("--offline", is_flag=True, help="Ask nobody: say whether all is there, and what is missing. HF_HUB_OFFLINE=1 does the same.")
@click.option("--workers", type=click.IntRange(1, 64), default=8, show_default=True, help="Files fetched at the same time.")
@shared_options
def download(
    call: Call, folder: Path | None, dry_run: bool, include: tuple[str, ...], exclude: tuple[str, ...], update: bool, offline: bool, workers: int
) -> int:
    """Fetch the weights (240 GB) into MODEL_PATH and verify them.

    Run it again after an interruption: it goes on where it stopped. A folder that is complete is left alone. The token, where one is
    needed, comes from HF_TOKEN or `hf auth login`.
    """
    from qwen_fp8_ops.plan.launch import make_plan
    from qwen_fp8_ops.weights.download_plan import Request

    plan = make_plan(call.configuration(), call.paths)
    settings = plan.settings
    if settings.is_demo_model:
        return _demo(call, plan, folder)
    offline = offline or any(os.environ.get(key, "").lower() in YES for key in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    if offline and update:
        raise ConfigError("--update asks the Hub, and --offline forbids it")
    target = folder.absolute() if folder else plan.model_path
    request = Request(settings.model_id, settings.model_revision, target, include, exclude, offline, update, workers)
    return _show(call, request) if dry_run else _fetch(call, request)


def _demo(call: Call, plan: LaunchPlan, folder: Path | None) -> int:
    from qwen_fp8_ops.report.console import Console
    from qwen_fp8_ops.service.start import make_demo_model

    plan = replace(plan, model_path=folder.absolute()) if folder else plan
    make_demo_model(plan, Console())
    call.give({"schema": 1, "ok": True, "model_id": plan.settings.model_id, "model_path": str(plan.model_path)}, f"Complete: {plan.model_path}")
    return ExitCode.DONE


def _fetch(call: Call, request: Request) -> int:
    from qwen_fp8_ops.cli.download_screen import make_screen
    from qwen_fp8_ops.weights.download import download as fetch
    from qwen_fp8_ops.weights.hub import Hub

    screen = make_screen()
    try:
        result = fetch(request, Hub.from_environment(), screen)
    except KeyboardInterrupt:
        screen.close()
        call.say("What was fetched is kept; run it again to go on.")
        raise
    finally:
        screen.close()
    call.give({"schema": 1, "ok": True, "model_id": request.repo, "model_path": str(request.folder), **result.as_json()}, _summary(result))
    return ExitCode.DONE


def _summary(result: Result) -> str:
    from qwen_fp8_ops.report.words import duration
    from qwen_fp8_ops.weights.room import gigabytes

    plan = result.plan
    what = f"{len(plan.items)} files, {gigabytes(plan.bytes)}, commit {plan.commit[:12]}"
    if result.nothing_to_do:
        return f"Complete already: {plan.request.folder} ({what})"
    fetched = f"fetched {gigabytes(result.fetched_bytes)} in {duration(result.seconds)}"
    return f"Complete and verified: {plan.request.folder} ({what}; {fetched})"


def _show(call: Call, request: Request) -> int:
    from qwen_fp8_ops.weights.download_plan import make_download_plan
    from qwen_fp8_ops.weights.hub import Hub
    from qwen_fp8_ops.weights.room import room

    plan = make_download_plan(request, Hub.from_environment(), call.say)
    free_bytes = room(request.folder).free_bytes
    call.give(_as_json(plan, free_bytes), _table(plan, free_bytes))
    return ExitCode.DONE if plan.missing_bytes <= free_bytes else ExitCode.PREFLIGHT


def _as_json(plan: DownloadPlan, free_bytes: int) -> dict[str, Any]:
    files = [{"name": item.file.name, "bytes": item.file.bytes, "state": item.presence.value, "present_bytes": item.present_bytes} for item in plan.items]
    return {
        "schema": 1,
        "ok": plan.missing_bytes <= free_bytes,
        "model_id": plan.request.repo,
        "model_path": str(plan.request.folder),
        "revision": plan.commit,
        "moved_to": plan.moved_to,
        "bytes": plan.bytes,
        "present_bytes": plan.present_bytes,
        "missing_bytes": plan.missing_bytes,
        "free_bytes": free_bytes,
        "files": files,
    }


def _table(plan: DownloadPlan, free_bytes: int) -> str:
    from qwen_fp8_ops.weights.download_plan import Presence
    from qwen_fp8_ops.weights.room import gigabytes

    words = {Presence.VERIFIED: "there, verified", Presence.FOUND: "there, to be checked", Presence.ABSENT: "to fetch"}
    width = max(len(item.file.name) for item in plan.items)
    lines = [f"{plan.request.repo} at {plan.commit} into {plan.request.folder}", ""]
    for item in plan.items:
        state = words.get(item.presence) or f"to fetch, {gigabytes(item.present_bytes)} of it are there"
        lines.append(f"  {item.file.name:<{width}}  {gigabytes(item.file.bytes):>11}  {state}")
    there = f", {gigabytes(plan.present_bytes)} there" if plan.present_bytes else ""
    lines += ["", f"{len(plan.items)} files, {gigabytes(plan.bytes)}{there}: {gigabytes(plan.missing_bytes)} to fetch, {gigabytes(free_bytes)} free on that disk"]
    if plan.missing_bytes > free_bytes:
        lines.append(f"The disk is too small by {gigabytes(plan.missing_bytes - free_bytes)}.")
    if plan.moved_to:
        lines.append(f"{plan.request.revision} is now {plan.moved_to}; --update goes there.")
    return "\n".join(lines)
