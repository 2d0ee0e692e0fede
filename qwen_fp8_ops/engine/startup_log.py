"""What the engine's log tells while it loads: the phase, how far the weights are, and the memory it found.

The weight cache writes the first lines of it too. For people and for the memory table only: whether the engine lives is asked of the process, whether it is ready of HTTP. Line
formats: vLLM 0.32 and 0.33 (``vllm/v1/worker/gpu_model_runner.py``, ``model_loader/weight_utils.py``, ``v1/core/kv_cache_utils.py``).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

GIB = 1024**3

PHASES = ("init", "weights", "compile", "kv-cache", "graphs", "warm-up")

# fmt: off
MARKS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"Initializing a V1 LLM engine"), "init"),
    (re.compile(r"Starting to load model|Loading safetensors checkpoint shards"), "weights"),
    (re.compile(r"Model loading took|torch\.compile took|Encoder cache will be initialized"), "compile"),
    (re.compile(r"Available KV cache memory|(GPU|CPU) KV cache size"), "kv-cache"),
    (re.compile(r"Capturing CUDA graphs|Graph capturing finished"), "graphs"),
    (re.compile(r"init engine .* took|Starting vLLM server on|Application startup complete"), "warm-up"),
)
# fmt: on
SHARDS = re.compile(r"Loading safetensors checkpoint shards:\s+\d+% Completed \| (\d+)/(\d+)")
WEIGHTS_MEMORY = re.compile(r"Model loading took (?P<gib>[\d.]+) GiB|Weight cache \w+ daemon rank (?P<rank>\d+) loaded model \((?P<cached>[\d.]+) GiB allocated")
KV_MEMORY = re.compile(r"Available KV cache memory: ([\d.]+) GiB|Explicitly set \(([\d.]+)/")
KV_TOKENS = re.compile(r"KV cache size: ([\d,]+) tokens(?:, Maximum concurrency for ([\d,]+) tokens per request: ([\d.]+)x)?")
GRAPHS_MEMORY = re.compile(r"Graph capturing finished in .*, took (-?[\d.]+) GiB")
RANK = re.compile(r"Worker_TP(\d+)")


@dataclass(frozen=True)
class EngineMemory:
    """What one engine logged about its memory; None until the line came.

    Weights and graphs are those of the rank that has most of them, the KV cache that of the rank with the least room: the engine
    makes all as small as that one.
    """

    weights_bytes_per_rank: int | None = None
    kv_cache_bytes_per_rank: int | None = None
    kv_cache_tokens: int | None = None
    graphs_bytes_per_rank: int | None = None
    max_concurrency: float | None = None


class StartupLog:
    """Reads lines in the order they come; a phase never goes back within one start."""

    def __init__(self) -> None:
        self.phase = "init"
        self.shards_done: int | None = None
        self.shards_total: int | None = None
        self.memory = EngineMemory()
        self.weights_by_rank: dict[int, int] = {}

    def feed(self, line: str) -> None:
        for pattern, phase in MARKS:
            if PHASES.index(phase) > PHASES.index(self.phase) and pattern.search(line):
                self.phase = phase
        for done, total in SHARDS.findall(line):
            self.shards_done, self.shards_total = int(done), int(total)
        self._feed_memory(line)

    def _feed_memory(self, line: str) -> None:
        if found := WEIGHTS_MEMORY.search(line):
            rank = RANK.search(line)
            self.weights_by_rank[int(found["rank"] or (rank[1] if rank else 0))] = round(float(found["gib"] or found["cached"]) * GIB)
            self.memory = replace(self.memory, weights_bytes_per_rank=max(self.weights_by_rank.values()))
        elif found := KV_MEMORY.search(line):
            room = round(float(found[1] or found[2]) * GIB)
            self.memory = replace(self.memory, kv_cache_bytes_per_rank=min(room, self.memory.kv_cache_bytes_per_rank or room))
        elif found := KV_TOKENS.search(line):
            concurrency = float(found[3]) if found[3] else None
            self.memory = replace(self.memory, kv_cache_tokens=int(found[1].replace(",", "")), max_concurrency=concurrency)
        elif found := GRAPHS_MEMORY.search(line):
            size = round(float(found[1]) * GIB)
            self.memory = replace(self.memory, graphs_bytes_per_rank=max(size, self.memory.graphs_bytes_per_rank or 0))

    @property
    def imbalance_percent(self) -> float | None:
        return imbalance_percent(self.weights_by_rank.values())


def imbalance_percent(sizes: Collection[int]) -> float | None:
    """How much more the fullest rank's weights take than the emptiest's."""
    return round((max(sizes) / min(sizes) - 1) * 100, 2) if len(sizes) > 1 and min(sizes) > 0 else None
