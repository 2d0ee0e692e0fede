"""Who holds the memory of each GPU: our ranks, others, nobody that we can see; and what our part consists of. Pure.

The driver tells how much each process holds, the engine's log what a rank uses it for, the memory plan what was expected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qwen_fp8_ops.outside.nvml import Gpu
from qwen_fp8_ops.outside.owner import Owner

Ranks = Mapping[int, int | None]
"""Our processes: pid to rank; None for one that is no worker."""


@dataclass(frozen=True)
class RankMemory:
    """What one rank was told to hold, in bytes, by the engine's log or by the plan. ``weights_bytes`` by rank where that is known."""

    weights_bytes: int | None = None
    kv_cache_bytes: int | None = None
    graphs_bytes: int | None = None
    weights_by_rank: tuple[int, ...] = ()

    @classmethod
    def logged(cls, memory: Mapping[str, Any] | None) -> RankMemory | None:
        """From the `memory` of a recorded state; None before the engine told anything."""
        if not memory:
            return None
        by_rank = memory.get("weights_bytes_by_rank") or ()
        return cls(memory["weights_bytes_per_rank"], memory["kv_cache_bytes_per_rank"], memory["graphs_bytes_per_rank"], tuple(by_rank))

    def weights_of(self, rank: int) -> int | None:
        return self.weights_by_rank[rank] if rank < len(self.weights_by_rank) else self.weights_bytes


@dataclass(frozen=True)
class Parts:
    """Of what our ranks hold on a GPU. ``rest_bytes``: activations, the CUDA context, communication buffers, and fragmentation."""

    weights_bytes: int
    kv_cache_bytes: int
    graphs_bytes: int
    rest_bytes: int


@dataclass(frozen=True)
class Holder:
    """A process on a GPU. Without ``owner`` the pid is of a namespace that we cannot see."""

    pid: int
    memory_bytes: int | None
    ours: bool
    rank: int | None
    owner: Owner | None


@dataclass(frozen=True)
class GpuMemory:
    """``unattributed_bytes`` is what is used and no process is shown for: another container's, or one that is just ending."""

    gpu: Gpu
    ours: bool
    holders: tuple[Holder, ...]
    own_bytes: int
    foreign_bytes: int
    unattributed_bytes: int | None
    parts: Parts | None

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(sorted(holder.rank for holder in self.holders if holder.rank is not None))


def distribute(
    gpus: Sequence[Gpu], ranks: Ranks, *, visible: Sequence[Gpu], memory: RankMemory | None = None, owner_of: Callable[[int], Owner | None]
) -> tuple[GpuMemory, ...]:
    """
    Args:
        visible: those that are ours to use; one that holds a rank of ours is ours as well.
        memory: what the engine said of its ranks' memory.
    """
    usable = {gpu.index for gpu in visible}
    return tuple(_on(gpu, ranks, gpu.index in usable, memory, owner_of) for gpu in gpus)


def _on(gpu: Gpu, ranks: Ranks, usable: bool, memory: RankMemory | None, owner_of: Callable[[int], Owner | None]) -> GpuMemory:
    holders = tuple(Holder(entry.pid, entry.memory_bytes, entry.pid in ranks, ranks.get(entry.pid), owner_of(entry.pid)) for entry in gpu.processes)
    own = sum(holder.memory_bytes or 0 for holder in holders if holder.ours)
    foreign = sum(holder.memory_bytes or 0 for holder in holders if not holder.ours)
    used = gpu.memory_used_bytes
    return GpuMemory(
        gpu=gpu,
        ours=usable or any(holder.ours for holder in holders),
        holders=holders,
        own_bytes=own,
        foreign_bytes=foreign,
        unattributed_bytes=max(0, used - own - foreign) if used is not None else None,
        parts=_parts(own, [holder.rank for holder in holders if holder.rank is not None], memory),
    )


def _parts(own: int, ranks: list[int], memory: RankMemory | None) -> Parts | None:
    """While it loads, a rank may hold less than it was told to: what is there is taken for weights first, then for the KV cache."""
    if memory is None or not ranks or not own:
        return None
    wanted = (
        sum(memory.weights_of(rank) or 0 for rank in ranks),
        (memory.kv_cache_bytes or 0) * len(ranks),
        max(0, memory.graphs_bytes or 0) * len(ranks),  # the engine's log has it below 0 when something was freed meanwhile
    )
    weights = min(own, wanted[0])
    kv_cache = min(own - weights, wanted[1])
    graphs = min(own - weights - kv_cache, wanted[2])
    return Parts(weights, kv_cache, graphs, own - weights - kv_cache - graphs)


def imbalance_percent(spread: Sequence[GpuMemory]) -> float | None:
    """How much more the fullest of our ranks' GPUs holds of ours than the emptiest; None with fewer than two."""
    sizes = [one.own_bytes for one in spread if one.ranks and one.own_bytes]
    return round((max(sizes) / min(sizes) - 1) * 100, 2) if len(sizes) > 1 else None


@dataclass(frozen=True)
class Compared:
    """One part against the plan, of the fullest rank. ``difference_percent`` is None when nothing was planned for it."""

    part: str
    planned_bytes: int
    bytes: int

    @property
    def difference_percent(self) -> float | None:
        return round((self.bytes / self.planned_bytes - 1) * 100, 1) if self.planned_bytes else None

    def as_json(self) -> dict[str, Any]:
        return {"part": self.part, "planned_bytes": self.planned_bytes, "bytes": self.bytes, "difference_percent": self.difference_percent}


def compare(spread: Sequence[GpuMemory], planned: Mapping[str, Any] | None) -> tuple[Compared, ...]:
    """What the ranks hold against the memory plan of the start; empty until the engine has told its parts.

    Args:
        planned: `weights_bytes_per_rank`, `kv_cache_bytes_per_rank` and `overhead_bytes_per_rank`.
    """
    single = [one.parts for one in spread if one.parts and len(one.ranks) == 1]
    if not planned or not single or not any(parts.kv_cache_bytes for parts in single):
        return ()
    return (
        Compared("weights", planned["weights_bytes_per_rank"], max(parts.weights_bytes for parts in single)),
        Compared("KV cache", planned["kv_cache_bytes_per_rank"], max(parts.kv_cache_bytes for parts in single)),
        Compared("overhead", planned["overhead_bytes_per_rank"], max(parts.graphs_bytes + parts.rest_bytes for parts in single)),
    )
