"""What starts on this host really took, by host and layout: the plan's overhead is assumed only until there is one.

``run/calibration.json`` is written by the supervisor when an engine became ready, from the lines that vLLM logged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qwen_fp8_ops.config.settings import Settings
from qwen_fp8_ops.engine.command import uses_expert_parallel
from qwen_fp8_ops.engine.startup_log import EngineMemory
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside.files import read_json, write_json
from qwen_fp8_ops.plan.cards import GIB
from qwen_fp8_ops.plan.overhead import Overhead
from qwen_fp8_ops.plan.rank import RankBytes

SCHEMA = 1
MOST_ENTRIES = 200


@dataclass(frozen=True)
class Measured:
    """One start. ``budget_bytes`` is what vLLM could use of each GPU; None on the CPU. Bytes are a rank's."""

    at: str
    host: str
    budget_bytes: int | None
    weights_bytes: int | None
    kv_cache_bytes: int | None
    kv_cache_tokens: int | None
    max_model_len: int
    graphs_bytes: int | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def beside_kv_cache_bytes(self) -> int | None:
        """Weights and all else: what the KV cache did not get. None when the log did not tell."""
        return None if self.budget_bytes is None or self.kv_cache_bytes is None else self.budget_bytes - self.kv_cache_bytes


def key_of(host: str, model: Path, settings: Settings, vllm_version: str) -> str:
    """What must be equal for one start to tell of another. MAX_MODEL_LEN, GPU_MEMORY_UTIL and the KV cache's type need not be."""
    parts = [
        f"vllm {vllm_version}",
        f"tp{settings.tensor_parallel_size}",
        "ep" if uses_expert_parallel(settings) else "",
        "cpu" if settings.on_cpu else "",
        "eager" if settings.enforce_eager else "",
        f"batched {settings.max_num_batched_tokens}",
        f"seqs {settings.max_num_seqs}",
        f"vision {settings.mm_encoder_tp_mode} {settings.max_images}+{settings.max_videos}",
        " ".join(settings.vllm_extra_args),
    ]
    return " | ".join([host, str(model), *filter(None, parts)])


def remember(path: Path, key: str, measured: Measured) -> None:
    """
    Raises:
        OpsError: the folder refuses the write.
    """
    entries = {name: value for name, value in _entries(path).items() if name != key}
    newest = dict(list(entries.items())[-(MOST_ENTRIES - 1) :])
    write_json(path, {"schema": SCHEMA, "entries": {**newest, key: asdict(measured)}})


def recall(path: Path, key: str) -> Measured | None:
    """None when no such start was recorded, or the record is damaged: then the plan assumes again."""
    try:
        return Measured(**_entries(path)[key])
    except (KeyError, TypeError):
        return None


def measured_start(*, at: str, host: str, settings: Settings, memory: EngineMemory, usable_bytes: int | None) -> Measured:
    budget = None if settings.on_cpu or usable_bytes is None else round(usable_bytes * settings.gpu_memory_util)
    return Measured(
        at=at,
        host=host,
        budget_bytes=budget,
        weights_bytes=memory.weights_bytes_per_rank,
        kv_cache_bytes=memory.kv_cache_bytes_per_rank,
        kv_cache_tokens=memory.kv_cache_tokens,
        max_model_len=settings.max_model_len,
        graphs_bytes=memory.graphs_bytes_per_rank,
    )


def overhead_of(measured: Measured, rank: RankBytes) -> Overhead | None:
    """The plan's overhead by that start: all that was neither the plan's weights nor KV cache. None when it cannot be told."""
    taken = measured.beside_kv_cache_bytes
    if not isinstance(taken, int) or taken < rank.weights_bytes:
        return None
    count = taken - rank.weights_bytes
    return Overhead(count, "measured", f"{count / GIB:.2f} GiB by the start on {measured.host} at {measured.at}", measured.graphs_bytes or 0)


def _entries(path: Path) -> Mapping[str, Any]:
    try:
        value = read_json(path)
    except OpsError:
        return {}  # only an estimate hangs on it
    entries = value.get("entries") if isinstance(value, dict) and value.get("schema") == SCHEMA else None
    return entries if isinstance(entries, dict) else {}
