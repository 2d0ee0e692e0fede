"""What one rank of the engine holds in memory, from the checkpoint's facts and the layout. Pure arithmetic.

As vLLM 0.32 splits the model: attention heads, the vocabulary and expert widths over the ranks of tensor parallelism; KV heads are
repeated once there are more ranks than heads; under expert parallelism each rank has whole experts; router and norms are on all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from qwen_fp8_ops.config.settings import Settings
from qwen_fp8_ops.engine.command import uses_expert_parallel
from qwen_fp8_ops.weights.facts import CheckpointFacts, VisionFacts

SCALE_BYTES = 4
"""vLLM keeps the scale of a block as float32, whatever the checkpoint has."""

ACTIVATION_BYTES = 2
VOCABULARY_STEP = 64
SMALLEST_BLOCK = 32
"""Of the blocks that vLLM refines scales to; smaller ones it refuses."""

MROPE_FACTOR = 4
"""vLLM makes the rotary table of a model that sees video four times as long as its context (`MRotaryEmbedding`)."""


@dataclass(frozen=True)
class RankBytes:
    """Bytes of the fullest rank. ``buffers_bytes``: deepstack inputs and one rotary table, which vLLM allocates with the weights.

    ``mrope_bytes`` is the rest of the rotary table: vLLM logs it with the weights, the plan counts it in the overhead.
    """

    experts_bytes: int
    attention_bytes: int
    embeddings_bytes: int
    vision_bytes: int
    replicated_bytes: int
    buffers_bytes: int
    mrope_bytes: int
    kv_bytes_per_token: int

    @property
    def weights_bytes(self) -> int:
        return self.experts_bytes + self.attention_bytes + self.embeddings_bytes + self.vision_bytes + self.replicated_bytes + self.buffers_bytes

    @property
    def logged_bytes(self) -> int:
        """What the engine will call "Model loading took": within 0.1 % of the one public log of this model."""
        return self.weights_bytes + self.mrope_bytes


def rank_bytes(settings: Settings, facts: CheckpointFacts) -> RankBytes:
    ranks = settings.tensor_parallel_size
    rope = facts.max_position * facts.head_dim * ACTIVATION_BYTES
    deepstack = facts.vision.deepstack_levels * settings.max_num_batched_tokens * facts.hidden_size * ACTIVATION_BYTES if facts.vision else 0
    return RankBytes(
        experts_bytes=_experts(settings, facts),
        attention_bytes=_attention(facts, ranks),
        embeddings_bytes=_share(facts.embeddings_bytes * _padded(facts.vocab_size) // max(1, facts.vocab_size), ranks),
        vision_bytes=_vision(facts, ranks, whole=settings.mm_encoder_tp_mode == "data"),
        replicated_bytes=facts.router_bytes + facts.norms_bytes + _share(facts.other_bytes, ranks),
        buffers_bytes=deepstack + rope,
        mrope_bytes=(MROPE_FACTOR - 1) * rope if facts.vision else 0,
        kv_bytes_per_token=2 * facts.layers * kv_heads_per_rank(facts, ranks) * facts.head_dim * kv_element_bytes(settings.kv_cache_dtype),
    )


def kv_heads_per_rank(facts: CheckpointFacts, ranks: int) -> int:
    return max(1, facts.kv_heads // ranks)


def kv_element_bytes(kv_cache_dtype: str) -> int:
    """`auto` is the activations' type, bfloat16, with an FP8 checkpoint too."""
    return 1 if kv_cache_dtype.startswith("fp8") else ACTIVATION_BYTES


def expert_block(settings: Settings, facts: CheckpointFacts) -> int | None:
    """The side of the scale blocks that the experts' slices need; None where no block fits, or nothing is quantised in blocks."""
    if facts.quant_block is None or not facts.expert_width:
        return None
    width = slice_width(settings, facts)
    if width % facts.quant_block[0] == 0 and width % facts.quant_block[1] == 0:
        return facts.quant_block[0]
    refined = math.gcd(*facts.quant_block, width, facts.hidden_size)
    return refined if refined >= SMALLEST_BLOCK else None


def slice_width(settings: Settings, facts: CheckpointFacts) -> int:
    """Of an expert, on one rank."""
    return facts.expert_width if uses_expert_parallel(settings) else facts.expert_width // settings.tensor_parallel_size


def _experts(settings: Settings, facts: CheckpointFacts) -> int:
    ranks = settings.tensor_parallel_size
    if uses_expert_parallel(settings) and facts.experts:
        held = facts.experts_bytes * -(-facts.experts // ranks) // facts.experts
    else:
        held = _share(facts.experts_bytes, ranks)
    if facts.quant_block is None:
        return held + _share(facts.expert_scales_bytes, ranks)
    block = expert_block(settings, facts) or facts.quant_block[0]
    return held + held * SCALE_BYTES // block**2


def _attention(facts: CheckpointFacts, ranks: int) -> int:
    whole = facts.attention_heads + facts.kv_heads
    held = facts.attention_heads / ranks + kv_heads_per_rank(facts, ranks)
    weights = round(facts.attention_bytes * held / max(1, whole))
    if facts.quant_block is None:
        return weights + round(facts.attention_scales_bytes * held / max(1, whole))
    return weights + weights * SCALE_BYTES // math.prod(facts.quant_block)


def _vision(facts: CheckpointFacts, ranks: int, *, whole: bool) -> int:
    if facts.vision is None or whole:
        return facts.vision_bytes
    split = min(facts.vision_bytes, _split_parameters(facts.vision) * facts.vision.bytes // max(1, facts.vision.parameters))
    return facts.vision_bytes - split + _share(split, ranks)


def _split_parameters(vision: VisionFacts) -> int:
    """Of the blocks' and the mergers' matrices; patch and position embeddings, norms and the rest stay whole on each rank."""
    block = 4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
    merged = vision.hidden_size * vision.spatial_merge_size**2
    return vision.depth * block + (1 + vision.deepstack_levels) * (merged**2 + merged * vision.out_hidden_size)


def _padded(vocabulary: int) -> int:
    return -(-vocabulary // VOCABULARY_STEP) * VOCABULARY_STEP


def _share(count: int, ranks: int) -> int:
    return -(-count // ranks)
