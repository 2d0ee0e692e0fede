"""The engine's Prometheus page, read into the few numbers that status shows. Names: vLLM ``v1/metrics/loggers.py``."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

NUMBER = r"[0-9]{1,18}(?:\.[0-9]+)?(?:e[+-]?[0-9]{1,2})?"
LINE = re.compile(rf"^vllm:([a-zA-Z0-9_:]+)(?:\{{(.*)\}})? ({NUMBER})$")
BOUND = re.compile(rf'(?:^|,)le="({NUMBER}|\+Inf)"')


@dataclass(frozen=True)
class EngineMetrics:
    """One reading, over all the engines behind one server. Counters are totals since the engine began, seconds are medians over
    its life, ``kv_cache_usage`` is the fullest engine's, from 0 to 1; ``steps`` are those that gave a token to anybody.
    """

    running: int
    waiting: int
    kv_cache_usage: float
    preemptions: int
    prompt_tokens: float
    generation_tokens: float
    ttft_seconds_p50: float | None
    itl_seconds_p50: float | None
    steps: float = 0.0

    @property
    def motion(self) -> tuple[float, ...]:
        """What only the engine's own loop changes: while any of it changes, the loop turns. The share of the KV cache is among it
        because nothing else grows while a long prompt is read chunk by chunk.
        """
        return (self.running, self.waiting, self.kv_cache_usage, self.preemptions, self.prompt_tokens, self.generation_tokens, self.steps)


def parse_metrics(text: str) -> EngineMetrics:
    """Unknown lines, and values that are no number yet (NaN), are passed over and missing ones read as 0, so that a renamed metric
    costs its number and no more.
    """
    totals: dict[str, float] = defaultdict(float)
    highest: dict[str, float] = defaultdict(float)
    buckets: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for line in text.splitlines():
        found = LINE.match(line)
        if not found:
            continue
        name, value = found[1], float(found[3])
        if name.endswith("_bucket"):
            bound = BOUND.search(found[2] or "")
            if bound:
                buckets[name.removesuffix("_bucket")][float(bound[1])] += value
        else:
            totals[name] += value
            highest[name] = max(highest[name], value)
    return EngineMetrics(
        running=int(totals["num_requests_running"]),
        waiting=int(totals["num_requests_waiting"]),
        kv_cache_usage=highest["kv_cache_usage_perc"],
        preemptions=int(totals["num_preemptions_total"]),
        prompt_tokens=totals["prompt_tokens_total"],
        generation_tokens=totals["generation_tokens_total"],
        ttft_seconds_p50=median(buckets["time_to_first_token_seconds"]),
        itl_seconds_p50=median(buckets["inter_token_latency_seconds"]),
        steps=totals["iteration_tokens_total_count"],
    )


def median(buckets: dict[float, float]) -> float | None:
    """The median of a cumulative histogram, straight within its bucket; None when it is empty."""
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] == 0:
        return None
    half = buckets[bounds[-1]] / 2
    below, low = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= half:
            if bound == float("inf"):
                return low
            share = (half - below) / (buckets[bound] - below)
            return low + (bound - low) * share
        below, low = buckets[bound], bound
    return low
