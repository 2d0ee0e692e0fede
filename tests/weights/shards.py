"""Checkpoints for tests: tiny ones with every file a real folder has, and sparse ones of any size."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qwen_fp8_ops.weights.headers import DTYPE_BITS

Entry = dict[str, Any]
INDEX = "model.safetensors.index.json"

CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3VLMoeForConditionalGeneration"],
    "tie_word_embeddings": False,
    "quantization_config": {
        "quant_method": "fp8",
        "weight_block_size": [128, 128],
        "modules_to_not_convert": ["lm_head", "model.language_model.layers.1.self_attn.q_proj"],
    },
    "text_config": {
        "dtype": "bfloat16",
        "vocab_size": 32,
        "hidden_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "max_position_embeddings": 262144,
        "moe_intermediate_size": 64,
        "num_experts": 2,
        "num_experts_per_tok": 1,
    },
    "vision_config": {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 32,
        "patch_size": 4,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "out_hidden_size": 256,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    },
}


def entries(tensors: Mapping[str, tuple[str, Sequence[int]]]) -> dict[str, Entry]:
    """Header entries, one after the other."""
    found: dict[str, Entry] = {}
    position = 0
    for name, (dtype, shape) in tensors.items():
        elements = 1
        for side in shape:
            elements *= side
        size = elements * DTYPE_BITS[dtype] // 8
        found[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    return found


def header_bytes(header: Any) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


def write_shard(path: Path, header: dict[str, Entry], seed: int = 1) -> None:
    """With bytes that differ from place to place and from seed to seed."""
    size = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    pattern = bytes((seed * 37 + number * 11) % 251 for number in range(4096))
    path.write_bytes(header_bytes(header) + (pattern * (size // 4096 + 1))[:size])


def write_sparse_shard(path: Path, header: dict[str, Entry]) -> None:
    """Of its full size, taking no place on the disk."""
    start = header_bytes(header)
    path.write_bytes(start)
    os.truncate(path, len(start) + max(entry["data_offsets"][1] for entry in header.values()))


def promised_tensors(config: Mapping[str, Any]) -> dict[str, tuple[str, Sequence[int]]]:
    """What the config promises, with every expert by its own name."""
    from qwen_fp8_ops.weights.paper import tensors

    found: dict[str, tuple[str, Sequence[int]]] = {}
    for tensor in tensors(config):
        for number in range(tensor.count):
            found[tensor.name.replace(".experts.0.", f".experts.{number}.")] = (tensor.dtype, tensor.shape)
    return found


def write_small_files(folder: Path, config: Mapping[str, Any]) -> None:
    for name, value in {
        "config.json": config,
        "tokenizer.json": {"model": {}},
        "tokenizer_config.json": {},
        "preprocessor_config.json": {},
        "video_preprocessor_config.json": {},
        "generation_config.json": {},
    }.items():
        (folder / name).write_text(json.dumps(value))


def make_checkpoint(folder: Path, shards: int = 3, *, config: Mapping[str, Any] = CONFIG, sparse: bool = False) -> list[Path]:
    """A whole checkpoint, its tensors spread over so many shards."""
    folder.mkdir(parents=True, exist_ok=True)
    write_small_files(folder, config)
    tensors = promised_tensors(config)
    names = list(tensors)
    paths = []
    shard_of = {}
    for number in range(shards):
        mine = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        path = folder / f"model-{number + 1:05}-of-{shards:05}.safetensors"
        header = entries({name: tensors[name] for name in mine})
        if sparse:
            write_sparse_shard(path, header)
        else:
            write_shard(path, header, number)
        shard_of |= dict.fromkeys(mine, path.name)
        paths.append(path)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": shard_of}))
    return paths
