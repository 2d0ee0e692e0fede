"""Does it start, and with how much KV cache: one layout on one kind of GPU. Pure; ``plan.advice`` asks it about many layouts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from qwen_fp8_ops.config.settings import Settings
from qwen_fp8_ops.engine.command import uses_expert_parallel
from qwen_fp8_ops.engine.version import BLOCKS_REFINED_SINCE, release
from qwen_fp8_ops.plan import refusals
from qwen_fp8_ops.plan.cards import GIB, Hardware
from qwen_fp8_ops.plan.overhead import Overhead, beside_share
from qwen_fp8_ops.plan.rank import RankBytes, expert_block, rank_bytes, slice_width
from qwen_fp8_ops.weights.facts import CheckpointFacts

GPU_BLOCK_TOKENS = 16
CPU_BLOCK_TOKENS = 128
"""vLLM's block sizes where none is asked for."""


@dataclass(frozen=True)
class Fit:
    """``kv_tokens`` and ``max_concurrency`` as the engine will log them; ``longest`` is the largest MAX_MODEL_LEN that starts.

    ``error`` is what vLLM would end with, None when it starts; ``key`` the setting that stands in the way.
    """

    rank: RankBytes
    budget_bytes: int
    kv_room_bytes: int
    kv_tokens: int
    max_concurrency: float
    longest: int
    error: str | None
    key: str = ""

    @property
    def starts(self) -> bool:
        return self.error is None


@dataclass(frozen=True)
class Case:
    """One question; ``but`` asks the same with some settings changed."""

    settings: Settings
    facts: CheckpointFacts
    hardware: Hardware
    vllm_version: str
    overhead: Overhead

    def but(self, **changes: Any) -> Case:
        return replace(self, settings=replace(self.settings, **changes))

    def fit(self) -> Fit:
        rank = rank_bytes(self.settings, self.facts)
        budget, room = self._room(rank)
        block = CPU_BLOCK_TOKENS if self.settings.on_cpu else GPU_BLOCK_TOKENS
        blocks = max(0, room) // (rank.kv_bytes_per_token * block)
        length = self.settings.max_model_len
        # The engine's own sum: requests of full length in whole blocks, and their tokens.
        concurrency = blocks / refusals.blocks_for(length, block)
        longest = min(self.facts.max_position, max(0, blocks - 1) * block)  # one block is never given out
        key, error = self._refusal(rank, budget, room, block, longest)
        return Fit(rank, budget, room, int(concurrency * length), round(concurrency, 2), longest, error, key)

    def _room(self, rank: RankBytes) -> tuple[int, int]:
        if self.settings.on_cpu:
            return self.hardware.usable_bytes, self.settings.cpu_kv_cache_gib * GIB
        budget = math.ceil(self.hardware.usable_bytes * self.settings.gpu_memory_util)
        return budget, budget - rank.weights_bytes - self.overhead.bytes

    def _refusal(self, rank: RankBytes, budget: int, room: int, block: int, longest: int) -> tuple[str, str | None]:
        """The first thing that vLLM would stumble over, in the order in which it comes to them."""
        settings, facts, hardware = self.settings, self.facts, self.hardware
        ranks = settings.tensor_parallel_size
        if settings.max_model_len > facts.max_position:
            return "MAX_MODEL_LEN", refusals.beyond_positions(settings.max_model_len, facts.max_position)
        if facts.attention_heads % ranks:
            return "TENSOR_PARALLEL_SIZE", refusals.heads_do_not_split(facts.attention_heads, ranks)
        for index, free in enumerate(hardware.free_bytes[:ranks]):
            if free < budget and not settings.on_cpu:
                return "GPU_MEMORY_UTIL", refusals.not_free(index, free, hardware.usable_bytes, settings.gpu_memory_util)
            if free < budget + beside_share(settings):
                return "GPU_MEMORY_UTIL", refusals.not_free_beside_weights(
                    index, free, hardware.usable_bytes, settings.gpu_memory_util, rank.logged_bytes, beside_share(settings)
                )
        if facts.quant_block and facts.expert_width and not self._experts_split():
            return "EXPERT_PARALLEL", refusals.experts_do_not_split(slice_width(settings, facts), facts.quant_block)
        if settings.on_cpu and room > hardware.usable_bytes:
            return "CPU_KV_CACHE_GIB", refusals.not_free_on_cpu(hardware.usable_bytes, hardware.total_bytes, room)
        if not settings.on_cpu and rank.logged_bytes > hardware.usable_bytes:
            return "TENSOR_PARALLEL_SIZE", refusals.weights_do_not_fit(hardware.usable_bytes)
        block_bytes = rank.kv_bytes_per_token * block
        usable = room - block_bytes
        if usable <= 0:
            return "GPU_MEMORY_UTIL", refusals.no_room()
        needed = refusals.blocks_for(settings.max_model_len, block) * block_bytes
        if needed > usable:
            return "MAX_MODEL_LEN", refusals.context_does_not_fit(settings.max_model_len, needed, usable, longest)
        return "", None

    def _experts_split(self) -> bool:
        if uses_expert_parallel(self.settings):
            return True
        block = expert_block(self.settings, self.facts)
        if block is None:
            return False
        return block == (self.facts.quant_block or (0, 0))[0] or release(self.vllm_version) >= BLOCKS_REFINED_SINCE
