"""The files of a demo checkpoint, one for one as the large model's repository has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_fp8_ops.weights.demo import architecture, tokenizer
from qwen_fp8_ops.weights.demo.fp8 import quantization_config

if TYPE_CHECKING:
    import torch

TOKEN_PIXELS = (architecture.PATCH * architecture.MERGE) ** 2
"""Pixels of an image that become one token; of a video, of two frames together."""

SHORTEST_IMAGE_TOKENS, LONGEST_IMAGE_TOKENS = 4, 36
"""What the processor brings every image to. The demo model was trained on such sizes and sees no more in larger ones."""

CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja")
SHARDS = 6
LONGEST_PROMPT_TOKENS = 262144


def small_files(token_ids: dict[str, int], *, fp8: bool) -> dict[str, Any]:
    """The JSON files of a checkpoint whose tokenizer gives these ids."""
    config = architecture.config(token_ids)
    if fp8:
        config["quantization_config"] = quantization_config(architecture.LAYERS)
    return {
        "config.json": config,
        "generation_config.json": _generation(token_ids),
        "tokenizer_config.json": tokenizer.config(LONGEST_PROMPT_TOKENS),
        "preprocessor_config.json": _processor("image"),
        "video_preprocessor_config.json": _processor("video"),
    }


def write_shards(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Shards of about the same size, and the index that says where each tensor is."""
    from safetensors.torch import save

    total_bytes = sum(value.nbytes for value in weights.values())
    shards: list[dict[str, torch.Tensor]] = [{} for _ in range(SHARDS)]
    before = 0
    for name in sorted(weights):
        shards[before * SHARDS // total_bytes][name] = weights[name]
        before += weights[name].nbytes
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        path = folder / f"model-{number:05}-of-{SHARDS:05}.safetensors"
        # Not save_file: it makes files that only their owner may read, and tells a full disk in an exception of its own.
        path.write_bytes(save(shard, metadata={"format": "pt"}))
        index |= dict.fromkeys(shard, path.name)
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total_bytes}, "weight_map": index})


def _generation(token_ids: dict[str, int]) -> dict[str, Any]:
    return {
        "bos_token_id": token_ids["<|endoftext|>"],
        "pad_token_id": token_ids["<|endoftext|>"],
        "eos_token_id": [token_ids["<|im_end|>"], token_ids["<|endoftext|>"]],
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.95,
        "top_k": 20,
        "repetition_penalty": 1.0,
    }


def _processor(what: str) -> dict[str, Any]:
    """Preprocessor files. Sizes are in pixels, a video's over all its frames.

    16 images of the largest size (36 tokens each) and 2 of the longest videos (640) fit into a context of 4096 tokens; an image
    of 64 x 64 is taken as it is, while the large model's processor blows everything up to 256 x 256.
    """
    common = {
        "patch_size": architecture.PATCH,
        "temporal_patch_size": architecture.FRAMES_PER_PATCH,
        "merge_size": architecture.MERGE,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    if what == "image":
        return {
            "processor_class": "Qwen3VLProcessor",
            "image_processor_type": "Qwen2VLImageProcessorFast",
            "size": {"shortest_edge": SHORTEST_IMAGE_TOKENS * TOKEN_PIXELS, "longest_edge": LONGEST_IMAGE_TOKENS * TOKEN_PIXELS},
            **common,
        }
    return {
        "processor_class": "Qwen3VLProcessor",
        "video_processor_type": "Qwen3VLVideoProcessor",
        "size": {"shortest_edge": 4 * TOKEN_PIXELS, "longest_edge": 640 * 2 * TOKEN_PIXELS},
        "fps": 2,
        "min_frames": 4,
        "max_frames": 32,
        **common,
    }


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
