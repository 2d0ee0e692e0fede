"""Write a checkpoint with random weights into an empty folder, file for file as the large model's repository has them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.weights.demo import architecture, random_weights, tokenizer

if TYPE_CHECKING:
    import torch

TOKEN_PIXELS = (architecture.PATCH * architecture.MERGE) ** 2
"""Pixels of an image that become one token; of a video, of two frames together."""

CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja")
SHARDS = 2
LONGEST_PROMPT_TOKENS = 262144


def write_checkpoint(folder: Path, say: Callable[[str], None]) -> None:
    """
    Raises:
        OpsError: a package of the ``cpu`` extra is missing.
        OSError: the folder refuses a write.
    """
    try:
        words = tokenizer.train()
        vocabulary = words.get_vocab()
        say(f"demo checkpoint: tokenizer trained, {len(vocabulary)} tokens")
        weights = random_weights.make(vocabulary)
    except ImportError as error:
        raise OpsError(
            f"The demo checkpoint needs the package {error.name}, which is not installed",
            code="missing-package",
            fix="Install the cpu extra: ./start_service.sh --profile demo does it, or pip install '.[cpu]'.",
        ) from error
    words.save(str(folder / "tokenizer.json"))
    _write_shards(folder, weights)
    shutil.copyfile(CHAT_TEMPLATE, folder / CHAT_TEMPLATE.name)
    for name, value in {
        "config.json": architecture.config(vocabulary),
        "generation_config.json": _generation(vocabulary),
        "tokenizer_config.json": tokenizer.config(LONGEST_PROMPT_TOKENS),
        "preprocessor_config.json": _processor("image"),
        "video_preprocessor_config.json": _processor("video"),
    }.items():
        _write_json(folder / name, value)
    parameters = sum(value.numel() for value in weights.values())
    say(f"demo checkpoint: {parameters / 1e6:.1f} million random weights written")


def _write_shards(folder: Path, weights: dict[str, torch.Tensor]) -> None:
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
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total_bytes}, "weight_map": index})


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

    16 images of the largest size (100 tokens each) and 2 of the longest videos (640) fit into a context of 4096 tokens; an image
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
            "size": {"shortest_edge": 4 * TOKEN_PIXELS, "longest_edge": 100 * TOKEN_PIXELS},
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


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
