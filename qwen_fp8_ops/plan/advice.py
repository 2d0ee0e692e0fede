"""What to change, and what it would give: each piece of advice names one key, a value for it, and the numbers that speak for it.

Nothing is advised by rule of thumb where it can be computed: every layout named here was planned like the one that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from qwen_fp8_ops.engine.command import uses_expert_parallel
from qwen_fp8_ops.plan.cards import GIB
from qwen_fp8_ops.plan.fit import Case, Fit
from qwen_fp8_ops.plan.overhead import beside_share
from qwen_fp8_ops.plan.rank import expert_block
from qwen_fp8_ops.weights.facts import VisionFacts

PHOTO = (1920, 1080)
VIDEO_TOKENS = (24_000, 34_000)
"""A video of five minutes, as a public operator's guide of this model counts it."""

HIGHEST_UTIL = 0.95
IDLE_BYTES = 2 * GIB
"""Of an idle GPU that CUDA and NCCL take before the engine looks what is free: 0.6 and 1.5 GiB were seen, with one rank and with two."""

MOST_SEQUENCES = 1024


@dataclass(frozen=True)
class Advice:
    key: str
    value: str | float
    why: str


def advise(case: Case, fit: Fit) -> tuple[Advice, ...]:
    """The most useful first: what would make it start, else what could be better."""
    sources = (_context, _concurrency, _layout, _gpus, _fp8_cache, _images, _utilisation) if fit.starts else (_ways_to_start,)
    found = [advice for source in sources for advice in source(case, fit)]
    return tuple([*found, *_blocks(case)] if fit.starts else found)


def tokens_of_image(vision: VisionFacts, width: int, height: int) -> int:
    """As the processor resizes it: both sides to the nearest multiple of a merged patch."""
    side = vision.patch_size * vision.spatial_merge_size
    return max(1, round(width / side)) * max(1, round(height / side))


def _ways_to_start(case: Case, fit: Fit) -> Iterator[Advice]:
    settings, ranks = case.settings, case.settings.tensor_parallel_size
    if case.hardware.free_bytes and fit.key == "GPU_MEMORY_UTIL" and not settings.on_cpu:
        share = int((min(case.hardware.free_bytes[:ranks]) - beside_share(settings)) / case.hardware.usable_bytes * 100) / 100
        if share >= 0.1 and case.but(gpu_memory_util=share).fit().starts:
            yield Advice("GPU_MEMORY_UTIL", share, "what the fullest GPU has free; or end what holds the memory")
    if settings.max_model_len > fit.longest >= 256:
        yield from _if_it_starts(case, "MAX_MODEL_LEN", fit.longest, "the longest context that fits")
    if settings.on_cpu:
        most = int(case.hardware.usable_bytes / GIB) // max(1, ranks)
        if settings.cpu_kv_cache_gib > most >= 1:
            yield from _if_it_starts(case, "CPU_KV_CACHE_GIB", most, f"{case.hardware.usable_bytes / GIB:.1f} GiB of this host's memory are free, for {ranks} rank(s)")
        return
    if not settings.kv_cache_dtype.startswith("fp8"):
        yield from _if_it_starts(case, "KV_CACHE_DTYPE", "fp8", "half the bytes for each token")
    if settings.gpu_memory_util < HIGHEST_UTIL:
        yield from _if_it_starts(case, "GPU_MEMORY_UTIL", HIGHEST_UTIL, "more of each GPU's memory")
    if settings.mm_encoder_tp_mode == "data" and ranks > 1:
        yield from _if_it_starts(case, "MM_ENCODER_TP_MODE", "weights", "the vision tower split over the GPUs")
    if not uses_expert_parallel(settings):
        yield from _if_it_starts(case, "EXPERT_PARALLEL", "on", "whole experts on each GPU: their 128-blocks need not be split")
    for size in (2, 4, 8, 16):
        if size != ranks and size > settings.gpu_count:
            # Only more GPUs than there are: the same card is assumed.
            yield from _if_it_starts(case, "GPU_COUNT", size, f"weights split over {size} GPUs (TENSOR_PARALLEL_SIZE={size})", gpu_count=size, tensor_parallel_size=size)
        elif size != ranks:
            yield from _if_it_starts(case, "TENSOR_PARALLEL_SIZE", size, f"each GPU holds one {size}th of the layers", tensor_parallel_size=size)


def _if_it_starts(case: Case, key: str, value: str | float, why: str, **changes: Any) -> Iterator[Advice]:
    changed = case.but(**(changes or {key.lower(): value})).fit()
    if changed.starts:
        yield Advice(key, value, f"then it starts: {why}; {_summary(changed)}")


def _context(case: Case, fit: Fit) -> Iterator[Advice]:
    if fit.longest > case.settings.max_model_len:
        then = case.but(max_model_len=fit.longest).fit()
        yield Advice("MAX_MODEL_LEN", fit.longest, f"the longest context that starts; the KV cache then holds {then.max_concurrency:.1f} requests of that length")


def _concurrency(case: Case, fit: Fit) -> Iterator[Advice]:
    asked, held = case.settings.max_num_seqs, int(fit.max_concurrency)
    if held > asked:
        yield Advice(
            "MAX_NUM_SEQS",
            min(held, MOST_SEQUENCES),
            f"the KV cache holds {held} requests of {case.settings.max_model_len:,} tokens and MAX_NUM_SEQS={asked} lets {asked} of them run: others wait while memory is unused",
        )
    elif held < asked:
        yield Advice("MAX_NUM_SEQS", max(1, held), f"only {held} requests of {case.settings.max_model_len:,} tokens fit; when all of {asked} are that long, some are put off and computed again")


def _layout(case: Case, fit: Fit) -> Iterator[Advice]:
    """One engine over all GPUs against two over half of them each."""
    settings = case.settings
    ranks = settings.tensor_parallel_size
    large = 2 * ranks if settings.gpu_count >= 2 * ranks else ranks
    if settings.on_cpu or large < 4 or large % 2:
        return
    half = fit if large > ranks else case.but(tensor_parallel_size=large // 2).fit()
    whole = fit if large == ranks else case.but(tensor_parallel_size=large).fit()
    if half.starts and whole.starts:
        yield Advice(
            "TENSOR_PARALLEL_SIZE",
            large // 2 if large == ranks else large,
            f"two engines of {large // 2} GPUs hold 2 x {half.kv_tokens:,} tokens of KV cache, contexts up to {half.longest:,}: more tokens a second over many short "
            f"requests (1.4 to 2.9 times in a public H100 lab, for the text model of this size). One of {large} holds {whole.kv_tokens:,}, contexts up to {whole.longest:,}: "
            "long documents and videos",
        )


def _gpus(case: Case, fit: Fit) -> Iterator[Advice]:
    settings = case.settings
    for size in (4, 8):
        if not settings.on_cpu and size != settings.tensor_parallel_size and {size, settings.gpu_count} == {4, 8}:
            other = case.but(gpu_count=size, tensor_parallel_size=size).fit()
            if other.starts:
                yield Advice("GPU_COUNT", size, f"{size} GPUs instead of {settings.gpu_count} (TENSOR_PARALLEL_SIZE={size}): {_summary(other)} instead of {fit.kv_tokens:,} tokens")


def _fp8_cache(case: Case, fit: Fit) -> Iterator[Advice]:
    if not case.settings.kv_cache_dtype.startswith("fp8"):
        halved = case.but(kv_cache_dtype="fp8").fit()
        yield Advice("KV_CACHE_DTYPE", "fp8", f"{_summary(halved)} instead of {fit.kv_tokens:,}; compare answers on your own data first")


def _images(case: Case, fit: Fit) -> Iterator[Advice]:
    """A request's pictures, its text and its answer share one context."""
    settings, vision = case.settings, case.facts.vision
    if vision is None or not settings.max_images:
        return
    each = tokens_of_image(vision, *PHOTO)
    answer = min(settings.max_tokens, settings.max_model_len // 2)
    fitting = (settings.max_model_len - answer) // each
    if fitting < settings.max_images:
        needed = settings.max_images * each + answer
        way = f"or MAX_MODEL_LEN={needed}" if needed <= fit.longest else f"all {settings.max_images} would need {needed:,} tokens, more than fit"
        yield Advice(
            "MAX_IMAGES",
            max(1, fitting),
            f"an image of {PHOTO[0]}x{PHOTO[1]} is {each:,} tokens: {fitting} of them leave {answer:,} for the answer in {settings.max_model_len:,}; {way}. "
            f"A video of five minutes is {VIDEO_TOKENS[0]:,} to {VIDEO_TOKENS[1]:,}",
        )


def _utilisation(case: Case, fit: Fit) -> Iterator[Advice]:
    """An idle GPU has some of its memory taken before the engine looks."""
    usable = case.hardware.usable_bytes
    if not case.settings.on_cpu and fit.budget_bytes + beside_share(case.settings) > usable - IDLE_BYTES:
        free = f"{(usable - IDLE_BYTES) / GIB:.1f} of {usable / GIB:.1f} GiB, beside CUDA's context and NCCL"
        yield Advice("GPU_MEMORY_UTIL", HIGHEST_UTIL, f"{case.settings.gpu_memory_util} of a GPU is more than an idle one may have free ({free}): then it does not start")


def _blocks(case: Case) -> Iterator[Advice]:
    """Experts whose slices are no whole FP8 blocks run, from vLLM 0.29 on, and only with Triton's kernels."""
    facts = case.facts
    if facts.quant_block and not uses_expert_parallel(case.settings) and expert_block(case.settings, facts) not in (None, facts.quant_block[0]):
        width = facts.expert_width // case.settings.tensor_parallel_size
        yield Advice(
            "EXPERT_PARALLEL",
            "on",
            f"{facts.expert_width}/{case.settings.tensor_parallel_size} = {width} is no multiple of {facts.quant_block[0]}: vLLM {case.vllm_version} serves it with smaller blocks "
            "and Triton kernels only; whole experts keep the fast ones",
        )


def _summary(fit: Fit) -> str:
    return f"{fit.kv_tokens:,} tokens of KV cache, contexts up to {fit.longest:,}"
