"""What a checkpoint is, from config.json and the headers of its shards alone: no torch, no weights read.

Where the weights are not on this disk yet, config.json gives the same numbers by the names and shapes it promises; where that is
not there either, a built-in card of the one model this project is for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside.files import read_json
from qwen_fp8_ops.weights import card, paper
from qwen_fp8_ops.weights.headers import DTYPE_BITS, Header, read_header
from qwen_fp8_ops.weights.layout import Layout, read_layout

Source = Literal["headers", "config", "card"]
SCALES = ("_scale_inv", "_scale")
READERS = 8
"""Headers that are read at once: what takes time is the way to a network file system and back."""


@dataclass(frozen=True)
class VisionFacts:
    """The vision tower. Sizes in pixels (patch), frames (temporal patch) and patches a side (merge)."""

    depth: int
    hidden_size: int
    intermediate_size: int
    out_hidden_size: int
    patch_size: int
    spatial_merge_size: int
    temporal_patch_size: int
    deepstack_levels: int
    bytes: int
    parameters: int


@dataclass(frozen=True)
class CheckpointFacts:
    """``source`` is "headers" when measured on the files, "config" or "card" when computed. Scales are no parameters.

    The groups from ``experts_bytes`` to ``other_bytes`` add up to ``checkpoint_bytes``; embeddings are embed_tokens and lm_head.
    """

    source: Source
    architecture: str
    parameters: int
    checkpoint_bytes: int
    bytes_by_dtype: Mapping[str, int]
    layers: int
    hidden_size: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    experts: int
    experts_per_token: int
    expert_width: int
    vocab_size: int
    tied_embeddings: bool
    quant_method: str | None
    quant_block: tuple[int, int] | None
    max_position: int
    vision: VisionFacts | None
    experts_bytes: int
    expert_scales_bytes: int
    attention_bytes: int
    attention_scales_bytes: int
    embeddings_bytes: int
    router_bytes: int
    norms_bytes: int
    vision_bytes: int
    other_bytes: int

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "bytes_by_dtype": dict(self.bytes_by_dtype)}


class Counted(NamedTuple):
    """``times`` tensors of one form, ``bytes`` each."""

    name: str
    dtype: str
    elements: int
    bytes: int
    times: int


def read_facts(folder: Path) -> CheckpointFacts:
    """
    Raises:
        OpsError: naming the file and what is wrong with it.
    """
    config = _read_config(folder)
    layout = read_layout(folder)
    measured = (
        Counted(name, info.dtype, info.elements, info.bytes, 1) for header in read_headers(folder, layout).values() for name, info in header.tensors.items()
    )
    return _facts(config, measured, "headers")


def read_headers(folder: Path, layout: Layout) -> dict[str, Header]:
    """The header of each shard.

    Raises:
        HeaderError: of the first shard that is not whole.
    """
    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip(layout.shards, pool.map(lambda name: read_header(folder / name), layout.shards), strict=True))


def facts_from_config(config: Mapping[str, Any], source: Source = "config") -> CheckpointFacts:
    """What the checkpoint of this config.json must be: Qwen3-MoE and Qwen3-VL-MoE.

    Raises:
        OpsError: another architecture, or a number that is missing.
    """
    return _facts(config, _promised(config), source)


def facts_for(folder: Path, model_id: str) -> CheckpointFacts:
    """The best there is: from the weights, from config.json while they are not all there, from the card before that.

    Raises:
        OpsError: no config.json and no card of ``model_id``; or what is there is damaged.
    """
    if os.path.exists(folder / "config.json"):
        layout = read_layout(folder)
        if layout.shards and all(os.path.exists(folder / name) for name in layout.shards):
            return read_facts(folder)
        return facts_from_config(_read_config(folder))
    config = card.config_of(model_id)
    if config is None:
        raise OpsError(f"Nothing is known of {model_id}: {folder} has no config.json", code="no-model", fix="./download_model.sh\nOr set MODEL_PATH to the folder that has it.")
    return facts_from_config(config, "card")


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    config = read_json(path)
    if not isinstance(config, dict):
        raise OpsError(f"{path} {'is missing' if config is None else 'is no JSON object'}", code="bad-config", fix="./download_model.sh\nOr set MODEL_PATH to the folder that has the model.")
    return config


def _promised(config: Mapping[str, Any]) -> Iterable[Counted]:
    for tensor in paper.tensors(config):
        elements = paper.elements(tensor.shape)
        yield Counted(tensor.name, tensor.dtype, elements, elements * DTYPE_BITS[tensor.dtype] // 8, tensor.count)


def group_of(name: str) -> str:
    """The group of ``CheckpointFacts`` that a tensor's bytes are counted in."""
    if name.startswith(("model.visual.", "visual.")):
        return "vision"
    scale = name.endswith(SCALES)
    if ".experts." in name:
        return "expert_scales" if scale else "experts"
    if ".self_attn." in name and "norm" not in name:
        return "attention_scales" if scale else "attention"
    if "embed_tokens" in name or name.startswith("lm_head."):
        return "embeddings"
    if ".mlp.gate." in name:
        return "router"
    return "norms" if "norm" in name else "other"


GROUPS = ("experts", "expert_scales", "attention", "attention_scales", "embeddings", "router", "norms", "vision", "other")


def _facts(config: Mapping[str, Any], tensors: Iterable[Counted], source: Source) -> CheckpointFacts:
    group_bytes = dict.fromkeys(GROUPS, 0)
    dtype_bytes: dict[str, int] = {}
    parameters = vision_parameters = 0
    for name, dtype, elements, size, times in tensors:
        group = group_of(name)
        group_bytes[group] += size * times
        dtype_bytes[dtype] = dtype_bytes.get(dtype, 0) + size * times
        if not name.endswith(SCALES):
            parameters += elements * times
            vision_parameters += elements * times if group == "vision" else 0
    whole = paper.Numbers(config, "config.json")
    text = whole.part("text_config") or whole
    vision = whole.part("vision_config")
    quantisation = paper.Quantisation.of(whole)
    experts = text.number("num_experts", 0)
    return CheckpointFacts(
        source=source,
        architecture=str((whole.get("architectures") or ["unknown"])[0]),
        parameters=parameters,
        checkpoint_bytes=sum(group_bytes.values()),
        bytes_by_dtype=dtype_bytes,
        layers=text.number("num_hidden_layers"),
        hidden_size=text.number("hidden_size"),
        attention_heads=text.number("num_attention_heads"),
        kv_heads=text.number("num_key_value_heads", text.number("num_attention_heads")),
        head_dim=paper.head_dim(text),
        experts=experts,
        experts_per_token=text.number("num_experts_per_tok", 0) if experts else 0,
        expert_width=text.number("moe_intermediate_size", 0) if experts else 0,
        vocab_size=text.number("vocab_size"),
        tied_embeddings=paper.tied_to(whole),
        quant_method=quantisation.method if quantisation else None,
        quant_block=quantisation.block if quantisation else None,
        max_position=text.number("max_position_embeddings"),
        vision=_vision_facts(vision, group_bytes["vision"], vision_parameters) if vision else None,
        **{f"{group}_bytes": size for group, size in group_bytes.items()},
    )


def _vision_facts(vision: paper.Numbers, size: int, parameters: int) -> VisionFacts:
    keys = ("depth", "hidden_size", "intermediate_size", "out_hidden_size", "patch_size", "spatial_merge_size", "temporal_patch_size")
    return VisionFacts(**{key: vision.number(key) for key in keys}, deepstack_levels=paper.deepstack_levels(vision), bytes=size, parameters=parameters)


CARD_235B = facts_from_config(card.CONFIG_235B, "card")
"""Qwen3-VL-235B-A22B-Thinking-FP8, before it is on this disk."""
