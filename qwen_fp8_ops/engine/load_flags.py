"""How the engine is told to read its weights."""

from __future__ import annotations

import json

THREADS = 8

FLAGS: dict[str, tuple[str, ...]] = {
    "engine": (),
    "lazy": ("--safetensors-load-strategy=lazy",),
    "eager": ("--safetensors-load-strategy=eager",),
    "prefetch": ("--safetensors-load-strategy=prefetch",),
    "multithread": (f"--model-loader-extra-config={json.dumps({'enable_multithread_load': True, 'num_threads': THREADS})}",),
    "instanttensor": ("--load-format=instanttensor",),
}
"""By the words of LOAD_STRATEGY; "engine" leaves it to vLLM (mapped lazily; read ahead on NFS and Lustre where it fits in memory)."""


def load_flags(strategy: str) -> tuple[str, ...]:
    """``auto`` that nobody resolved is the engine's own way."""
    return FLAGS["engine" if strategy == "auto" else strategy]
