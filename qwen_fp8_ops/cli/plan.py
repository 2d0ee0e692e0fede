"""``plan``: does it fit, with what numbers, and what to change, before the ten minutes of loading."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from qwen_fp8_ops.cli.common import Call, shared_options
from qwen_fp8_ops.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from qwen_fp8_ops.outside.storage import ReadRate
    from qwen_fp8_ops.plan.cards import Hardware
    from qwen_fp8_ops.plan.situation import Situation


@click.command(
    epilog="Examples:\n\n\b\n  qwen-fp8 plan\n  qwen-fp8 plan --gpus 4 --gpu-name 'H100 80GB' --set MAX_MODEL_LEN=262144\n"
    "  qwen-fp8 plan --gpu-name H200 --vllm-version 0.28.0 --set EXPERT_PARALLEL=off --json"
)
@click.option("--gpus", type=click.IntRange(0, 64), help="Plan for so many GPUs, all in one engine; 0 is the engine on the CPU.")
@click.option("--gpu-name", metavar="NAME", help="Plan for such GPUs: A100 40GB, A100 80GB, H100, H100 NVL, H200, B200, L40S, or any name with --gpu-memory-gib.")
@click.option("--gpu-memory-gib", type=click.IntRange(1, 1024), metavar="GIB", help="Plan for GPUs of this size, as the vendor names it.")
@click.option("--vllm-version", metavar="V", help="Plan for this release of vLLM; default: the installed one.")
@click.option("--overhead-gib", type=click.FloatRange(0, 1024), metavar="GIB", help="Take this for activations, graphs and the like, in place of what is assumed or was measured.")
@click.option("--no-probe", is_flag=True, help="Do not read from the disk to estimate the load time.")
@shared_options
def plan(call: Call, gpus: int | None, gpu_name: str | None, gpu_memory_gib: int | None, vllm_version: str | None, overhead_gib: float | None, no_probe: bool) -> int:
    """Plan the memory of each GPU: weights, KV cache, overhead; say whether vLLM would start, and what to change. Starts nothing.

    Exit code 4 when it does not fit. Without a GPU the cards that GPU_NAME and GPU_MEMORY_GIB name are planned for.
    """
    from qwen_fp8_ops.outside.storage import read_rate
    from qwen_fp8_ops.plan.load_strategy import choose
    from qwen_fp8_ops.plan.overhead import GIB, given
    from qwen_fp8_ops.report.plan_text import render_plan

    if gpus is not None:
        # Before the --set values, which can still choose another layout.
        call.overrides = [f"GPU_COUNT={gpus}", f"TENSOR_PARALLEL_SIZE={max(1, gpus)}", *call.overrides]
    situation = _situation(call)
    made = situation.memory_plan(
        hardware=_asked_for(situation, gpu_name, gpu_memory_gib), vllm_version=_version(vllm_version), given=None if overhead_gib is None else given(round(overhead_gib * GIB))
    )
    storage = situation.storage()
    load = choose(made.settings, made.facts, storage)
    shard = None if no_probe else situation.largest_shard()
    rate = read_rate(shard) if shard else None
    measured = situation.measured(made.vllm_version)
    value = {**made.as_json(), "load": {**_load_json(load, rate), "filesystem": storage.filesystem, "free_memory_bytes": storage.free_memory_bytes}}
    call.give({**value, "measured": measured.as_json() if measured else None}, render_plan(made, load, rate, measured))
    return ExitCode.DONE if made.fits else ExitCode.PREFLIGHT


def _situation(call: Call) -> Situation:
    from qwen_fp8_ops.engine.flags import refuse_clashes
    from qwen_fp8_ops.plan.situation import Situation

    settings = call.configuration().settings
    refuse_clashes(settings.vllm_extra_args)
    return Situation(settings, settings.folder(settings.model_path, call.paths.home), call.paths, os.environ)


def _asked_for(situation: Situation, name: str | None, memory_gib: int | None) -> Hardware | None:
    """
    Raises:
        ConfigError: a card that is not known, and no size for it.
    """
    from qwen_fp8_ops.plan.cards import CARDS, described, find_card

    if situation.settings.on_cpu or (name is None and memory_gib is None):
        return None
    if memory_gib is None and find_card(name or "") is None:
        known = ", ".join(card.name for card in CARDS)
        raise ConfigError(f"--gpu-name {name}: the cards known are {known}", code="unknown-card", fix="Name the size of another one with --gpu-memory-gib.")
    return described(name if name is not None else situation.settings.gpu_name, memory_gib)


def _version(text: str | None) -> str | None:
    """
    Raises:
        ConfigError: not the form of a version.
    """
    from qwen_fp8_ops.engine.version import release

    if text is not None:
        try:
            release(text)
        except ValueError as error:
            raise ConfigError(f"--vllm-version: {error}", fix="Such as --vllm-version 0.32.0") from error
    return text


def _load_json(load: Any, rate: ReadRate | None) -> dict[str, Any]:
    known = rate is not None and not rate.from_cache
    return {
        "strategy": load.strategy,
        "why": load.why,
        "expert_filter": load.expert_filter,
        "disk_bytes": load.disk_bytes,
        "read_bytes_per_second": round(rate.bytes_per_second) if rate else None,
        "read_from_cache": rate.from_cache if rate else None,
        "seconds_estimated": round(load.disk_bytes / rate.bytes_per_second, 1) if rate and known else None,
    }
