"""The facts of a running service as one JSON-able dict: what state.json holds and `status` shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from qwen_fp8_ops.engine.metrics import EngineMetrics
from qwen_fp8_ops.engine.startup_log import imbalance_percent
from qwen_fp8_ops.outside import clock
from qwen_fp8_ops.service.child import Child, Life


class Rates:
    """Tokens per second, from two readings of growing counters."""

    def __init__(self) -> None:
        self._moment = 0.0
        self._totals = (0.0, 0.0)
        self._rates = (0.0, 0.0)

    def take(self, prompt_tokens: float, generation_tokens: float) -> tuple[float, float]:
        """The rates since the reading before; the same totals again mean the same reading until a second has passed."""
        now, totals = clock.monotonic(), (prompt_tokens, generation_tokens)
        seconds = now - self._moment
        if totals != self._totals or seconds > 30:
            grown = totals[0] >= self._totals[0] and totals[1] >= self._totals[1] and self._moment > 0
            self._rates = (round((totals[0] - self._totals[0]) / seconds, 1), round((totals[1] - self._totals[1]) / seconds, 1)) if grown else (0.0, 0.0)
            self._moment, self._totals = now, totals
        return self._rates


def load_of(child: Child) -> dict[str, Any] | None:
    """How far a start is; None when the child is not starting. The ETA comes from the last start of the same, if there was one."""
    if child.life is not Life.STARTING:
        return None
    log, elapsed = child.startup, clock.monotonic() - child.started
    counted = log.phase == "weights" and log.shards_total
    return {
        "phase": log.phase,
        "done": log.shards_done if counted else None,
        "total": log.shards_total if counted else None,
        "fraction": round((log.shards_done or 0) / log.shards_total, 3) if counted and log.shards_total else None,
        "elapsed_seconds": round(elapsed),
        "eta_seconds": max(0, round(child.expected_seconds - elapsed)) if child.expected_seconds else None,
    }


def program_facts(child: Child) -> dict[str, Any]:
    """What identifies a program and its process; readers of another host can show it but not judge it."""
    return {
        "name": child.program.name,
        "role": child.program.role,
        "state": child.life.value,
        "pid": child.identity.pid if child.identity and child.running else None,
        "identity": child.identity.as_json() if child.identity else None,
        "url": child.program.url,
        "log": child.program.log,
        "restarts": child.restarts,
        "reused": child.reused,
        "problem": child.problem,
    }


def memory_of(engines: Iterable[Child], cache: Child | None) -> dict[str, Any] | None:
    """What the engines logged of their memory: bytes of the fullest rank, tokens of all engines together. Weights that the cache holds
    are the engine's too, which maps them.
    """
    logs = [child.startup for child in engines if child.startup.memory.kv_cache_tokens is not None]
    if not logs:
        return None
    fullest = max(logs, key=lambda log: log.memory.weights_bytes_per_rank or 0)
    held = with_mapped(fullest.weights_by_rank, cache.startup.weights_by_rank if cache else {})
    return {
        **asdict(fullest.memory),
        "weights_bytes_per_rank": max(held.values(), default=None),
        "weights_bytes_by_rank": [held[rank] for rank in sorted(held)],
        "kv_cache_tokens": sum(log.memory.kv_cache_tokens or 0 for log in logs),
        "imbalance_percent": imbalance_percent(held.values()),
    }


def with_mapped(own: Mapping[int, int], mapped: Mapping[int, int]) -> dict[int, int]:
    """Bytes by rank: what each loaded itself, and what it maps."""
    return {rank: own.get(rank, 0) + mapped.get(rank, 0) for rank in own.keys() | mapped.keys()}


def engine_totals(readings: Iterable[EngineMetrics], rates: Rates) -> dict[str, Any] | None:
    """Sums over the engines; KV usage is the fullest engine's, the medians are the slowest's."""
    known = list(readings)
    if not known:
        return None
    prompt_rate, generation_rate = rates.take(sum(one.prompt_tokens for one in known), sum(one.generation_tokens for one in known))
    ttft = [one.ttft_seconds_p50 for one in known if one.ttft_seconds_p50 is not None]
    itl = [one.itl_seconds_p50 for one in known if one.itl_seconds_p50 is not None]
    return {
        "running": sum(one.running for one in known),
        "waiting": sum(one.waiting for one in known),
        "kv_cache_usage": max(one.kv_cache_usage for one in known),
        "preemptions": sum(one.preemptions for one in known),
        "prompt_tokens_per_second": prompt_rate,
        "generation_tokens_per_second": generation_rate,
        "ttft_seconds_p50": max(ttft, default=None),
        "itl_seconds_p50": max(itl, default=None),
    }


def children_facts(children: Sequence[Child], rates: Rates) -> dict[str, Any]:
    """Everything about the programs that state.json holds."""
    engines = [child for child in children if child.program.is_engine]
    rows = [
        {
            "name": child.program.name,
            "url": child.program.url,
            "state": child.life.value,
            "pid": child.identity.pid if child.identity and child.running else None,
            "load": load_of(child),
            "restarts": child.restarts,
        }
        for child in engines
    ]
    cache = next((child for child in children if child.program.is_weight_cache), None)
    loads = [load_of(cache)] if cache else []
    return {
        "restarts": sum(child.restarts for child in engines),
        "load": next((load for load in [*loads, *(row["load"] for row in rows)] if load), None),
        "programs": [program_facts(child) for child in children],
        "engines": rows,
        "memory": memory_of(engines, cache if cache and not any(engine.alone for engine in engines) else None),
        "engine": engine_totals([child.metrics for child in engines if child.metrics and child.running], rates),
    }
