"""Questions to the memory plan, short to write."""

from __future__ import annotations

from typing import Any

from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.settings import Settings
from qwen_fp8_ops.plan.cards import GIB, Hardware, described, host
from qwen_fp8_ops.plan.memory import MemoryPlan, memory_plan
from qwen_fp8_ops.plan.overhead import assumed, given
from qwen_fp8_ops.weights.facts import CARD_235B, CheckpointFacts, facts_from_config

MODERN = "0.32.0"

CONFIG_30B: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "decoder_sparse_step": 1,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
}


def settings_of(*profiles: str, **values: Any) -> Settings:
    return load(profiles=profiles, overrides=[f"{key}={value}" for key, value in values.items()]).settings


def planned(
    *profiles: str,
    card: str = "H100 80GB",
    hardware: Hardware | None = None,
    version: str = MODERN,
    overhead_gib: float | None = None,
    facts: CheckpointFacts = CARD_235B,
    **values: Any,
) -> MemoryPlan:
    settings = settings_of(*profiles, **values)
    default = host(16 * GIB, 24 * GIB) if settings.on_cpu else described(card, None)
    overhead = assumed(settings, version) if overhead_gib is None else given(round(overhead_gib * GIB))
    return memory_plan(settings, facts, hardware or default, version, overhead)


def demo_facts() -> CheckpointFacts:
    from qwen_fp8_ops.weights import card

    config = card.config_of("demo")
    assert config is not None
    return facts_from_config(config)
