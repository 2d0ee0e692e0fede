"""What is known of a model before anything of it is on this disk: the numbers of its config.json.

The card of Qwen3-VL-235B-A22B is checked by two public counts: 235,670,022,896 parameters, of which 576,388,336 are the vision tower.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

CONFIG_235B: Mapping[str, Any] = {
    "architectures": ["Qwen3VLMoeForConditionalGeneration"],
    "model_type": "qwen3_vl_moe",
    "tie_word_embeddings": False,
    "quantization_config": {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [128, 128],
    },
    "text_config": {
        "model_type": "qwen3_vl_moe_text",
        "dtype": "bfloat16",
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 94,
        "num_attention_heads": 64,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "max_position_embeddings": 262144,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "moe_intermediate_size": 1536,
        "num_experts": 128,
        "num_experts_per_tok": 8,
    },
    "vision_config": {
        "model_type": "qwen3_vl_moe",
        "depth": 27,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_heads": 16,
        "in_channels": 3,
        "patch_size": 16,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "out_hidden_size": 4096,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [8, 16, 24],
    },
}

IDS_235B = frozenset({"qwen3-vl-235b-a22b-thinking-fp8", "qwen3-vl-235b-a22b-instruct-fp8"})
"""Names of repositories, without their owner and in lower case: mirrors keep the name."""


def config_of(model_id: str) -> Mapping[str, Any] | None:
    """None for a model of which there is no card."""
    if model_id.rpartition("/")[2].lower() in IDS_235B:
        return CONFIG_235B
    if model_id == "demo":
        from qwen_fp8_ops.weights.demo import architecture

        return architecture.config(defaultdict(int))  # its token numbers change no size
    return None
