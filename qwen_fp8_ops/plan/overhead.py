"""What an engine takes beside its weights and the KV cache: activations, CUDA graphs, NCCL, the CUDA context.

Nothing but a start tells. Until one on this host was read from the log, it is an assumption and called that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qwen_fp8_ops.config.settings import Settings
from qwen_fp8_ops.engine.version import GRAPHS_COUNTED_SINCE, release

GIB = 1 << 30
ACTIVATIONS_BYTES = 3 * GIB
"""A public log of this model on 8 H100 (vLLM 0.15.1, 8k batched tokens) leaves 2.95 GiB for everything of this."""

GRAPHS_BYTES = 1 * GIB
"""vLLM's own estimate varies widely: 0.3 GiB for a few batch sizes, and tens of GiB too much in vllm#45178."""

WEIGHT_CACHE_BYTES = 1 * GIB
"""What the process that keeps a rank's weights takes beside them: a CUDA context, NCCL's buffers. Assumed; it is outside of the engine's
share (GPU_MEMORY_UTIL), of which vLLM takes off the weights alone."""


@dataclass(frozen=True)
class Overhead:
    """``bytes`` is all of it, ``graphs_bytes`` the part that CUDA graphs are assumed to take."""

    bytes: int
    source: Literal["assumed", "measured", "given"]
    why: str
    graphs_bytes: int = 0


def assumed(settings: Settings, vllm_version: str) -> Overhead:
    if settings.on_cpu:
        return Overhead(0, "assumed", "the KV cache of an engine on the CPU is set (CPU_KV_CACHE_GIB) and not what is left")
    base = "assumed until a start on this host is read from the log: 3 GiB of activations, NCCL and the like"
    if settings.enforce_eager:
        return Overhead(ACTIVATIONS_BYTES, "assumed", f"{base}; no CUDA graphs (ENFORCE_EAGER=on)")
    if release(vllm_version) < GRAPHS_COUNTED_SINCE:
        return Overhead(ACTIVATIONS_BYTES, "assumed", f"{base}; vLLM {vllm_version} takes CUDA graphs from what is left beside the budget")
    return Overhead(ACTIVATIONS_BYTES + GRAPHS_BYTES, "assumed", f"{base}, and 1 GiB for the estimate of CUDA graphs that vLLM takes off since 0.21", GRAPHS_BYTES)


def beside_share(settings: Settings) -> int:
    """Bytes of each GPU that must be free beside the engine's share."""
    return WEIGHT_CACHE_BYTES if settings.weight_cache and not settings.on_cpu else 0


def given(count: int) -> Overhead:
    return Overhead(count, "given", "as asked for")
