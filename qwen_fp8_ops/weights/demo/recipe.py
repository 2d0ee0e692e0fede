"""What a demo checkpoint's folder is filled with, and the file in it that says so.

The package brings the trained checkpoint in its FP8 form (``checkpoint/``). A GPU serves a copy of it; a CPU, whose FP8 kernels
need AMX, serves the same weights in bfloat16. A folder filled by another recipe, or by an older version of the same one, is
filled anew at the next start.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside.files import read_json, write_json

LABEL = "demo.json"
SHIPPED = Path(__file__).with_name("checkpoint")
VERSION = 5
"""Rises with every change of what the recipes write."""


@dataclass(frozen=True)
class Recipe:
    """``write`` fills an empty folder; ``version`` rises with every change of what it writes."""

    name: str
    version: int
    write: Callable[[Path, Callable[[str], None]], None]


def write_bf16(folder: Path, say: Callable[[str], None]) -> None:
    """The shipped checkpoint with its FP8 weights as the bfloat16 numbers that they mean.

    Raises:
        OpsError: a package of the ``cpu`` extra is missing.
        OSError: the folder refuses a write.
    """
    try:
        from safetensors.torch import load_file

        from qwen_fp8_ops.weights.demo.files import write_shards
        from qwen_fp8_ops.weights.demo.fp8 import dequantize_all

        weights = {name: value for path in sorted(SHIPPED.glob("*.safetensors")) for name, value in load_file(path).items()}
    except ImportError as error:
        raise OpsError(
            f"The demo checkpoint needs the package {error.name}, which is not installed",
            code="missing-package",
            fix="Install the cpu extra: ./start_service.sh --profile demo does it, or pip install '.[cpu]'.",
        ) from error
    for path in SHIPPED.iterdir():
        if not path.name.startswith("model"):
            shutil.copyfile(path, folder / path.name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    served = dequantize_all(weights)
    write_shards(folder, served)
    say(f"demo checkpoint: {sum(value.numel() for value in served.values()) / 1e6:.1f} million trained weights written in bfloat16")


def copy_fp8(folder: Path, say: Callable[[str], None]) -> None:
    """The shipped checkpoint as it is.

    Raises:
        OSError: the folder refuses a write.
    """
    for path in SHIPPED.iterdir():
        shutil.copyfile(path, folder / path.name)
    say("demo checkpoint: trained weights copied in FP8")


ON_CPU = Recipe("trained-bf16", VERSION, write_bf16)
ON_GPU = Recipe("trained-fp8", VERSION, copy_fp8)


def recipe_for(on_cpu: bool) -> Recipe:
    return ON_CPU if on_cpu else ON_GPU


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
