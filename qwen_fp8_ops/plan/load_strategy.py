"""How the weights should be read, from where they lie, how much memory is free, and how they are split. Pure.

What each way does in vLLM 0.32 (``model_loader/weight_utils.py``, ``default_loader.py``):
lazy maps the files, and with the expert weight filter a rank touches only its own experts; prefetch reads all files once, in
sequential streams shared out among the ranks, into the page cache, and maps them then; eager has each rank read whole files;
multithread has each rank read whole files in eight threads and knows no expert filter; instanttensor reads past the page cache,
each part once, straight to the GPUs.
"""

from __future__ import annotations

from dataclasses import dataclass

from qwen_fp8_ops.config.settings import Settings
from qwen_fp8_ops.engine.command import uses_expert_parallel
from qwen_fp8_ops.plan.cards import GIB
from qwen_fp8_ops.weights.facts import CheckpointFacts

NETWORK = frozenset({"nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "smbfs", "wekafs", "fuse.juicefs", "fuse.sshfs", "9p", "virtiofs", "pvfs2", "orangefs", "daos"})
IN_MEMORY = frozenset({"tmpfs", "ramfs"})
MEMORY_SHARE = 0.9
"""Of the free memory that may be filled with weights, as vLLM's own rule has it."""

SMALL_BYTES = 8 * GIB
"""Read in seconds whatever the way."""

OWN_LOADER = ("--load-format", "--model-loader-extra-config")


@dataclass(frozen=True)
class Storage:
    """Where the weights lie. ``free_memory_bytes`` is what the host's page cache may still take."""

    filesystem: str
    free_memory_bytes: int
    instanttensor: bool = False


@dataclass(frozen=True)
class LoadChoice:
    """``strategy`` is a word of LOAD_STRATEGY; ``disk_bytes`` what all ranks together will read from the disk."""

    strategy: str
    why: str
    disk_bytes: int
    expert_filter: bool


def choose(settings: Settings, facts: CheckpointFacts, storage: Storage) -> LoadChoice:
    strategy, why = _strategy(settings, facts, storage)
    filtered = uses_expert_parallel(settings)
    return LoadChoice(strategy, why, _disk_bytes(strategy, settings, facts, storage, filtered), filtered)


def _strategy(settings: Settings, facts: CheckpointFacts, storage: Storage) -> tuple[str, str]:
    if any(word.partition("=")[0].replace("_", "-") in OWN_LOADER for word in settings.vllm_extra_args):
        return "engine", "VLLM_EXTRA_ARGS names a loader"
    if settings.load_strategy != "auto":
        return settings.load_strategy, "LOAD_STRATEGY says so"
    size, ranks = facts.checkpoint_bytes, settings.tensor_parallel_size
    place, free = storage.filesystem or "an unknown file system", f"{storage.free_memory_bytes / GIB:.0f} GiB of free memory"
    room = storage.free_memory_bytes * MEMORY_SHARE
    if storage.filesystem in IN_MEMORY:
        return "lazy", f"{place} is memory already: mapped as it lies"
    if storage.instanttensor and not settings.on_cpu and size > SMALL_BYTES:
        return "instanttensor", "it is installed: each part is read once, past the page cache, straight to the GPUs (DeepSeek-R1 on 8 H200: 160 s -> 15 s)"
    if storage.filesystem in NETWORK:
        if size <= room:
            return "prefetch", f"{place} is reached over the network and {size / GIB:.0f} GiB fit in {free}: sequential streams, each file once"
        if uses_expert_parallel(settings):
            return "lazy", f"{place} is reached over the network and {size / GIB:.0f} GiB do not fit in {free}: each rank maps its own experts only"
        return "eager", f"{place} is reached over the network and {size / GIB:.0f} GiB do not fit in {free}: whole files one after another, not pages here and there"
    if size <= SMALL_BYTES:
        return "lazy", f"{size / GIB:.2f} GiB on {place}: read in seconds"
    if not uses_expert_parallel(settings) and size * ranks <= room:
        return "multithread", f"{place}, and {free} hold the {size / GIB:.0f} GiB for each of {ranks} rank(s): eight threads a rank"
    if size <= room:
        return "prefetch", f"{size / GIB:.0f} GiB on {place} fit in {free}: sequential streams fill the page cache faster than page faults (0.3 to 0.7 GiB/s cold)"
    return "lazy", f"{size / GIB:.0f} GiB on {place} do not fit in {free}: mapped, read where it is needed"


def _disk_bytes(strategy: str, settings: Settings, facts: CheckpointFacts, storage: Storage, filtered: bool) -> int:
    size, ranks = facts.checkpoint_bytes, settings.tensor_parallel_size
    if strategy == "instanttensor" and not filtered:
        return size  # ranks read a part each and hand it on
    if strategy != "instanttensor" and size <= storage.free_memory_bytes * MEMORY_SHARE:
        return size  # the second rank finds it in the page cache
    if filtered and strategy in ("lazy", "engine", "prefetch", "instanttensor"):
        return facts.experts_bytes + (size - facts.experts_bytes) * ranks
    return size * ranks
