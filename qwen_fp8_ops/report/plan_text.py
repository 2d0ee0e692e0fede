"""The memory plan for a person: the verdict, the table, what to change, and how the weights will be read."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from qwen_fp8_ops.outside.storage import ReadRate
from qwen_fp8_ops.plan.calibration import Measured
from qwen_fp8_ops.plan.load_strategy import LoadChoice
from qwen_fp8_ops.plan.memory import MemoryPlan
from qwen_fp8_ops.plan.overhead import beside_share
from qwen_fp8_ops.report.words import GIB, duration, gib

WIDTH = 100
LABEL_WIDTH = 17


def render_plan(plan: MemoryPlan, load: LoadChoice, rate: ReadRate | None, measured: Measured | None) -> str:
    return "\n".join([*_verdict(plan), "", *_table(plan, measured), "", *_advice(plan), "", *_load(plan, load, rate)])


def layout(plan: MemoryPlan) -> str:
    settings = plan.settings
    where = "on the CPU" if settings.on_cpu else f"on {settings.tensor_parallel_size} x {plan.hardware.name}"
    split = f"TP={settings.tensor_parallel_size}{' with expert parallelism' if plan.expert_parallel else ''}"
    return f"{where}, {split}, vLLM {plan.vllm_version}"


def _verdict(plan: MemoryPlan) -> Iterator[str]:
    settings = plan.settings
    if plan.fits:
        yield f"FITS {layout(plan)}"
        yield f"  {plan.fit.kv_tokens:,} tokens of KV cache: {plan.fit.max_concurrency:.2f} requests of {settings.max_model_len:,} tokens at the same time"
        return
    yield f"DOES NOT FIT {layout(plan)}"
    yield from _wrapped("vLLM would end with", plan.error_expected or "")


def _table(plan: MemoryPlan, measured: Measured | None) -> Iterator[str]:
    fit, rank, settings = plan.fit, plan.fit.rank, plan.settings
    source = {"headers": "read from its headers", "config": "computed from its config.json", "card": "built-in card: not on this disk yet"}[plan.facts.source]
    yield f"Checkpoint: {plan.facts.checkpoint_bytes / 1e9:.2f} GB ({_size(plan.facts.checkpoint_bytes)}), {plan.facts.parameters:,} parameters, {source}"
    yield "Each rank:" if settings.tensor_parallel_size > 1 else "The one rank:"
    rows = [
        ("weights", _size(rank.weights_bytes), _weights_note(plan)),
        ("  experts", _size(rank.experts_bytes), "whole experts" if plan.expert_parallel else "a slice of each"),
        ("  attention", _size(rank.attention_bytes), ""),
        ("  embeddings", _size(rank.embeddings_bytes), "and lm_head"),
        ("  vision tower", _size(rank.vision_bytes), "whole on each (MM_ENCODER_TP_MODE=data)" if settings.mm_encoder_tp_mode == "data" else "split (MM_ENCODER_TP_MODE=weights)"),
        ("  router, norms", _size(rank.replicated_bytes), ""),
        ("  buffers", _size(rank.buffers_bytes), "rotary table, deepstack inputs"),
    ]
    if not settings.on_cpu:
        rows.append(("overhead", _size(plan.overhead.bytes), plan.overhead.why))
        if beside_share(settings):
            rows.append(("weight cache", _size(beside_share(settings)), "of its own, assumed: a CUDA context and NCCL, beside GPU_MEMORY_UTIL; the weights count once"))
        rows.append(("KV cache", _size(fit.kv_room_bytes), f"of {_size(fit.budget_bytes)} = {settings.gpu_memory_util} x {_size(plan.hardware.usable_bytes)} ({plan.hardware.source})"))
    else:
        rows.append(("KV cache", _size(fit.kv_room_bytes), f"CPU_KV_CACHE_GIB, for each rank; {_size(plan.hardware.usable_bytes)} of this host's memory are free"))
    rows.append(("KV of one token", f"{rank.kv_bytes_per_token:,} B", f"KV_CACHE_DTYPE={settings.kv_cache_dtype}; {_heads(plan)}"))
    rows.append(("longest context", f"{fit.longest:,}", f"largest MAX_MODEL_LEN that starts; now {settings.max_model_len:,}"))
    for label, value, note in rows:
        yield from _row(label, value, note)
    if plan.hardware.fp8:
        yield from _row("FP8 here", "", plan.hardware.fp8)
    if measured and measured.kv_cache_tokens:
        yield from _row("last start", "", f"{measured.at}: the engine logged {measured.kv_cache_tokens:,} tokens (MAX_MODEL_LEN={measured.max_model_len:,})")


def _weights_note(plan: MemoryPlan) -> str:
    if plan.settings.on_cpu:
        return ""
    log = "weight cache's" if plan.settings.weight_cache else "engine's"
    return f"the {log} log will say about {plan.fit.rank.logged_bytes / GIB:.2f}"


def _heads(plan: MemoryPlan) -> str:
    ranks, heads = plan.settings.tensor_parallel_size, plan.facts.kv_heads
    return f"{heads} KV heads, each on {ranks // heads} ranks" if ranks > heads else f"{heads // ranks} of {heads} KV heads"


def _advice(plan: MemoryPlan) -> Iterator[str]:
    if not plan.advice:
        yield "Nothing to change." if plan.fits else "No change of one key makes it start; ask about other GPUs with --gpus and --gpu-name."
        return
    yield "What could be better:" if plan.fits else "What to change (any one of these):"
    for advice in plan.advice:
        yield from _wrapped(f"{advice.key}={advice.value}", advice.why)


def _load(plan: MemoryPlan, load: LoadChoice, rate: ReadRate | None) -> Iterator[str]:
    extra = "; with the expert weight filter" if load.expert_filter else ""
    yield from _wrapped(f"Weights are read by LOAD_STRATEGY={load.strategy}", f"{load.why}{extra}", first="")
    if rate is None:
        yield "  How long that takes is not known: the weights are not on this disk, or too few to tell." if plan.facts.source != "headers" else "  The disk was not asked for its speed."
        return
    speed = f"{rate.bytes_per_second / 1e9:.2f} GB/s in a read of {rate.bytes / 1e6:.0f} MB of one shard"
    if rate.from_cache:
        yield f"  {speed}, but from the page cache: the disk's own speed is not known."
        return
    doubt = "; the page cache may have helped" if rate.from_cache is None else ""
    yield f"  About {duration(load.disk_bytes / rate.bytes_per_second)} for {load.disk_bytes / 1e9:.0f} GB from the disk ({speed}{doubt}); compilation and graphs come on top."


def _size(count: int) -> str:
    """Of a tiny checkpoint in MiB."""
    return gib(count) if abs(count) >= GIB // 20 or not count else f"{count / (1 << 20):.1f} MiB"


def _row(label: str, value: str, note: str) -> Iterator[str]:
    head = f"  {label:<{LABEL_WIDTH}}{value:>12}  "
    lines = textwrap.wrap(note, WIDTH - len(head)) or [""]
    yield (head + lines[0]).rstrip()
    yield from (" " * len(head) + line for line in lines[1:])


def _wrapped(head: str, text: str, *, first: str = "  ") -> Iterator[str]:
    yield f"{first}{head}:"
    yield from textwrap.wrap(text, WIDTH, initial_indent=first + "  ", subsequent_indent=first + "  ", break_long_words=False, break_on_hyphens=False)
