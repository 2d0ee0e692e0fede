"""What a demo checkpoint is made by, and the file in its folder that says so.

A recipe with trained weights takes its place here as ``CURRENT``; folders made by another recipe, or by an older version of the
same one, are then made anew on the next start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside.files import read_json, write_json
from qwen_fp8_ops.weights.demo import build

LABEL = "demo.json"


@dataclass(frozen=True)
class Recipe:
    """``write`` fills an empty folder; ``version`` rises with every change of what it writes."""

    name: str
    version: int
    write: Callable[[Path, Callable[[str], None]], None]


CURRENT = Recipe("random-weights", 1, build.write_checkpoint)


@dataclass(frozen=True)
class Label:
    """demo.json: which recipe filled the folder, and with which files of how many bytes and which hashes."""

    recipe: str
    version: int
    files: dict[str, int]
    sha256: dict[str, str] = field(default_factory=dict)


def attach_label(folder: Path, recipe: Recipe) -> None:
    """Written last: a folder with a label is whole.

    Raises:
        OpsError: the folder refuses the write.
    """
    paths = sorted(folder.iterdir())
    files = {path.name: path.stat().st_size for path in paths}
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    write_json(folder / LABEL, {"schema": 1, "recipe": recipe.name, "version": recipe.version, "files": files, "sha256": hashes})


def read_label(folder: Path) -> Label | None:
    """None when the folder bears no label of ours, or one that cannot be read."""
    try:
        value: Any = read_json(folder / LABEL)
        files = {str(name): int(size) for name, size in value["files"].items()}
        hashes = {str(name): str(digest) for name, digest in value.get("sha256", {}).items()}
        return Label(str(value["recipe"]), int(value["version"]), files, hashes)
    except (OpsError, TypeError, KeyError, ValueError, AttributeError):
        return None
