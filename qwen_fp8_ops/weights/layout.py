"""Which files hold which tensors, by the checkpoint's own index."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside.files import read_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
"""A checkpoint of one file needs no index."""


@dataclass(frozen=True)
class Layout:
    """``shard_of`` maps tensors to files; None when there is no index. ``shards`` are names in order."""

    shards: tuple[str, ...]
    shard_of: Mapping[str, str] | None


def read_layout(folder: Path) -> Layout:
    """
    Raises:
        OpsError: the index is damaged, or names files outside the folder.
    """
    path = folder / INDEX
    index = read_json(path)
    if index is None:
        return Layout((SINGLE,) if os.path.lexists(folder / SINGLE) else (), None)
    shard_of = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shard_of, dict) or not shard_of:
        raise OpsError(f"{path} has no weight_map", code="bad-index", fix="qwen-fp8 verify --repair")
    shards = sorted(set(map(str, shard_of.values())))
    for name in shards:
        if not is_plain(name):
            raise OpsError(f"{path} names {name!a}, which is no file beside it", code="bad-index", fix="qwen-fp8 verify --repair")
    return Layout(tuple(shards), shard_of)


def is_plain(name: str) -> bool:
    """A name of a file in the folder, that can neither leave it nor disturb a terminal."""
    return name.isprintable() and name.endswith(".safetensors") and "/" not in name and not name.startswith(".")
