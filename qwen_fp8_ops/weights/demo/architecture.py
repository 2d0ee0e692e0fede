"""The demo model on paper: a Qwen3-VL-MoE small enough to be made in seconds. Pure data, no heavy imports.

Every part of the large model is here: experts with a router, a vision tower with three deepstack levels, interleaved M-RoPE.
Widths are multiples of 128, so that the FP8 form of such a checkpoint has whole blocks; head_dim is 64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

HIDDEN = 256
LAYERS = 4
HEADS = 4
KV_HEADS = 2
HEAD_DIM = 64
EXPERTS = 8
EXPERTS_PER_TOKEN = 2
EXPERT_WIDTH = 128
VOCABULARY = 1280

VISION_HIDDEN = 128
VISION_DEPTH = 4
VISION_HEADS = 2
VISION_WIDTH = 256
DEEPSTACK = (0, 1, 2)
PATCH = 16
FRAMES_PER_PATCH = 2
MERGE = 2
POSITIONS = 24 * 24

TEXT = "model.language_model."
VISION = "model.visual."

Shape = tuple[int, ...]


def config(token_ids: dict[str, int]) -> dict[str, Any]:
    """config.json, in the form of the large model's own."""
    return {
        "architectures": ["Qwen3VLMoeForConditionalGeneration"],
        "model_type": "qwen3_vl_moe",
        "dtype": "bfloat16",
        "tie_word_embeddings": False,
        "image_token_id": token_ids["<|image_pad|>"],
        "video_token_id": token_ids["<|video_pad|>"],
        "vision_start_token_id": token_ids["<|vision_start|>"],
        "vision_end_token_id": token_ids["<|vision_end|>"],
        "text_config": {
            "model_type": "qwen3_vl_moe_text",
            "dtype": "bfloat16",
            "vocab_size": VOCABULARY,
            "hidden_size": HIDDEN,
            "intermediate_size": 2 * HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS,
            "head_dim": HEAD_DIM,
            "hidden_act": "silu",
            "max_position_embeddings": 262144,
            "initializer_range": 0.02,
            "rms_norm_eps": 1e-06,
            "rope_theta": 5000000,
            "rope_scaling": {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [12, 10, 10]},
            "attention_bias": False,
            "attention_dropout": 0.0,
            "use_cache": True,
            "bos_token_id": token_ids["<|endoftext|>"],
            "eos_token_id": token_ids["<|im_end|>"],
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "moe_intermediate_size": EXPERT_WIDTH,
            "num_experts": EXPERTS,
            "num_experts_per_tok": EXPERTS_PER_TOKEN,
            "norm_topk_prob": True,
        },
        "vision_config": {
            "model_type": "qwen3_vl_moe",
            "depth": VISION_DEPTH,
            "hidden_size": VISION_HIDDEN,
            "hidden_act": "gelu_pytorch_tanh",
            "intermediate_size": VISION_WIDTH,
            "num_heads": VISION_HEADS,
            "in_channels": 3,
            "patch_size": PATCH,
            "temporal_patch_size": FRAMES_PER_PATCH,
            "spatial_merge_size": MERGE,
            "out_hidden_size": HIDDEN,
            "num_position_embeddings": POSITIONS,
            "deepstack_visual_indexes": list(DEEPSTACK),
            "initializer_range": 0.02,
        },
    }


def tensors() -> Iterator[tuple[str, Shape]]:
    """Name and shape of every tensor, by the large checkpoint's names: one tensor for each expert's each matrix."""
    yield f"{TEXT}embed_tokens.weight", (VOCABULARY, HIDDEN)
    yield "lm_head.weight", (VOCABULARY, HIDDEN)
    yield f"{TEXT}norm.weight", (HIDDEN,)
    for layer in range(LAYERS):
        yield from _text_layer(f"{TEXT}layers.{layer}.")
    yield f"{VISION}patch_embed.proj.weight", (VISION_HIDDEN, 3, FRAMES_PER_PATCH, PATCH, PATCH)
    yield f"{VISION}patch_embed.proj.bias", (VISION_HIDDEN,)
    yield f"{VISION}pos_embed.weight", (POSITIONS, VISION_HIDDEN)
    for block in range(VISION_DEPTH):
        yield from _vision_block(f"{VISION}blocks.{block}.")
    yield from _merger(f"{VISION}merger.", norm_width=VISION_HIDDEN)
    for level in range(len(DEEPSTACK)):
        yield from _merger(f"{VISION}deepstack_merger_list.{level}.", norm_width=VISION_HIDDEN * MERGE**2)


def _text_layer(at: str) -> Iterator[tuple[str, Shape]]:
    yield f"{at}input_layernorm.weight", (HIDDEN,)
    yield f"{at}post_attention_layernorm.weight", (HIDDEN,)
    yield f"{at}self_attn.q_proj.weight", (HEADS * HEAD_DIM, HIDDEN)
    yield f"{at}self_attn.k_proj.weight", (KV_HEADS * HEAD_DIM, HIDDEN)
    yield f"{at}self_attn.v_proj.weight", (KV_HEADS * HEAD_DIM, HIDDEN)
    yield f"{at}self_attn.o_proj.weight", (HIDDEN, HEADS * HEAD_DIM)
    yield f"{at}self_attn.q_norm.weight", (HEAD_DIM,)
    yield f"{at}self_attn.k_norm.weight", (HEAD_DIM,)
    yield f"{at}mlp.gate.weight", (EXPERTS, HIDDEN)
    for expert in range(EXPERTS):
        yield f"{at}mlp.experts.{expert}.gate_proj.weight", (EXPERT_WIDTH, HIDDEN)
        yield f"{at}mlp.experts.{expert}.up_proj.weight", (EXPERT_WIDTH, HIDDEN)
        yield f"{at}mlp.experts.{expert}.down_proj.weight", (HIDDEN, EXPERT_WIDTH)


def _vision_block(at: str) -> Iterator[tuple[str, Shape]]:
    yield from _with_bias(f"{at}norm1", (VISION_HIDDEN,))
    yield from _with_bias(f"{at}norm2", (VISION_HIDDEN,))
    yield from _with_bias(f"{at}attn.qkv", (3 * VISION_HIDDEN, VISION_HIDDEN))
    yield from _with_bias(f"{at}attn.proj", (VISION_HIDDEN, VISION_HIDDEN))
    yield from _with_bias(f"{at}mlp.linear_fc1", (VISION_WIDTH, VISION_HIDDEN))
    yield from _with_bias(f"{at}mlp.linear_fc2", (VISION_HIDDEN, VISION_WIDTH))


def _merger(at: str, norm_width: int) -> Iterator[tuple[str, Shape]]:
    """Merges 2x2 patches into one token; deepstack mergers norm after the merge, the last one before it."""
    merged = VISION_HIDDEN * MERGE**2
    yield from _with_bias(f"{at}norm", (norm_width,))
    yield from _with_bias(f"{at}linear_fc1", (merged, merged))
    yield from _with_bias(f"{at}linear_fc2", (HIDDEN, merged))


def _with_bias(at: str, shape: Shape) -> Iterator[tuple[str, Shape]]:
    yield f"{at}.weight", shape
    yield f"{at}.bias", shape[:1]
