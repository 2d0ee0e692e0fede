"""The memory plan: fits or not, with all numbers and what to change, before anything is loaded. Pure; ``plan.situation`` gathers what it asks for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from qwen_fp8_ops.config.settings import Settings
from qwen_fp8_ops.engine.command import uses_expert_parallel
from qwen_fp8_ops.plan.advice import Advice, advise
from qwen_fp8_ops.plan.cards import Hardware
from qwen_fp8_ops.plan.fit import Case, Fit
from qwen_fp8_ops.plan.overhead import Overhead, beside_share
from qwen_fp8_ops.weights.facts import CheckpointFacts

SCHEMA = 1


@dataclass(frozen=True)
class MemoryPlan:
    """``error_expected`` is what vLLM would end with, in its words; ``blocking_key`` the setting that stands in the way."""

    settings: Settings
    facts: CheckpointFacts
    hardware: Hardware
    vllm_version: str
    overhead: Overhead
    fit: Fit
    advice: tuple[Advice, ...]

    @property
    def fits(self) -> bool:
        return self.fit.starts

    @property
    def error_expected(self) -> str | None:
        return self.fit.error

    @property
    def expert_parallel(self) -> bool:
        return uses_expert_parallel(self.settings)

    def as_json(self) -> dict[str, Any]:
        fit, rank, settings, hardware = self.fit, self.fit.rank, self.settings, self.hardware
        return {
            "schema": SCHEMA,
            "ok": self.fits,
            "fits": self.fits,
            "error_expected": fit.error,
            "blocking_key": fit.key or None,
            "checkpoint_bytes": self.facts.checkpoint_bytes,
            "parameters": self.facts.parameters,
            "facts_source": self.facts.source,
            "tensor_parallel": settings.tensor_parallel_size,
            "expert_parallel": self.expert_parallel,
            "vllm_version": self.vllm_version,
            "max_model_len": settings.max_model_len,
            "max_num_seqs": settings.max_num_seqs,
            "kv_cache_dtype": settings.kv_cache_dtype,
            "gpu_memory_util": settings.gpu_memory_util,
            "hardware": {
                "name": hardware.name,
                "count": 0 if settings.on_cpu else settings.gpu_count,
                "total_bytes": hardware.total_bytes,
                "usable_bytes": hardware.usable_bytes,
                "free_bytes": list(hardware.free_bytes) or None,
                "source": hardware.source,
                "fp8": hardware.fp8,
            },
            "per_rank": {
                "budget_bytes": fit.budget_bytes,
                "weights_bytes": rank.weights_bytes,
                "experts_bytes": rank.experts_bytes,
                "attention_bytes": rank.attention_bytes,
                "embeddings_bytes": rank.embeddings_bytes,
                "vision_bytes": rank.vision_bytes,
                "replicated_bytes": rank.replicated_bytes,
                "buffers_bytes": rank.buffers_bytes,
                "logged_weights_bytes": rank.logged_bytes,
                "kv_bytes_per_token": rank.kv_bytes_per_token,
                "kv_room_bytes": fit.kv_room_bytes,
                "overhead_bytes": self.overhead.bytes,
                "weight_cache_bytes": beside_share(settings),
            },
            "overhead": asdict(self.overhead),
            "kv_tokens": fit.kv_tokens,
            "max_concurrency": fit.max_concurrency,
            "largest_max_model_len": fit.longest,
            "advice": [asdict(advice) for advice in self.advice],
        }


def memory_plan(settings: Settings, facts: CheckpointFacts, hardware: Hardware, vllm_version: str, overhead: Overhead) -> MemoryPlan:
    """
    Args:
        hardware: a known card, described GPUs or those the driver shows (``plan.cards``).
        vllm_version: such as "0.32.0"; what it refuses and what it takes off changed over time.
    """
    case = Case(settings, facts, hardware, vllm_version, overhead)
    fit = case.fit()
    return MemoryPlan(settings, facts, hardware, vllm_version, overhead, fit, advise(case, fit))
