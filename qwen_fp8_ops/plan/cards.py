"""The GPUs a plan is made for: known cards, those that a name and a size describe, and those the driver shows.

What counts is the memory that CUDA can hand out. It is less than NVML's total: the driver keeps a part, 479 MiB of an H100's 81,559.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from qwen_fp8_ops.outside.nvml import Gpu

GIB = 1 << 30
MIB = 1 << 20
USABLE_SHARE = 0.985
"""Of a nominal size, for a card that is not in the table: the known ones give 0.925 (48 GB with ECC) to 0.99."""


@dataclass(frozen=True)
class Card:
    """``family`` must be in a GPU's name. ``source`` says who measured total and usable bytes; "nominal" is the vendor's word."""

    name: str
    family: tuple[str, ...]
    nominal_gib: int
    total_bytes: int
    usable_bytes: int
    source: str
    fp8: str


AMPERE = "weights only: Marlin kernels unpack FP8 to 16 bit, so it saves memory and no time"
ADA = "FP8 tensor cores; no NVLink, tensor parallelism goes over PCIe"
HOPPER = "FP8 tensor cores, 128-blocks natively (DeepGEMM, CUTLASS, Triton)"
BLACKWELL = "FP8 tensor cores (FlashInfer, DeepGEMM, CUTLASS)"

# fmt: off
CARDS: tuple[Card, ...] = (
    Card("A100-40", ("A100",), 40, 40960 * MIB, 42_298_834_944, "total nominal; usable from a public deviceQuery log (bottlerocket #3873)", AMPERE),
    Card("A100-80", ("A100",), 80, 81920 * MIB, round(79.15 * GIB), "total nominal; usable from public out-of-memory messages (79.15 to 79.32 GiB)", AMPERE),
    Card("H100-80", ("H100",), 80, 81559 * MIB, 81080 * MIB, "nvidia-smi, and vLLM logs on H100 (79.18 GiB)", HOPPER),
    Card("H100-NVL", ("H100", "NVL"), 94, 95830 * MIB, round(93.00 * GIB), "nvidia-smi; usable from a public out-of-memory message (93.00 GiB)", HOPPER),
    Card("H200-141", ("H200",), 141, 143771 * MIB, round(139.81 * GIB), "nvidia-smi, and vLLM logs on H200 (139.81 GiB)", HOPPER),
    Card("B200", ("B200",), 180, 183359 * MIB, round(178.35 * GIB), "nvidia-smi, and public logs on B200 (178.35 GiB)", BLACKWELL),
    Card("L40S", ("L40S",), 48, 46068 * MIB, round(44.40 * GIB), "nvidia-smi with ECC on; usable from public out-of-memory messages (44.40 GiB)", ADA),
)
# fmt: on


@dataclass(frozen=True)
class Hardware:
    """What one rank gets. On the CPU engine the bytes are the host's.

    ``free_bytes`` is what each GPU has free now, in the order of the ranks; empty when that says nothing. ``indexes`` are the driver's.
    """

    name: str
    usable_bytes: int
    total_bytes: int
    source: str
    fp8: str = ""
    free_bytes: tuple[int, ...] = ()
    indexes: tuple[int, ...] = ()

    @property
    def is_live(self) -> bool:
        """Shown by the driver, and not only described."""
        return bool(self.indexes)


def find_card(name: str, memory_gib: int | None = None) -> Card | None:
    """The card that a name such as "H100 80GB" or "NVIDIA H100 80GB HBM3" means; ``memory_gib`` decides where the name does not."""
    own = next((card for card in CARDS if card.name == name.upper()), None)
    if own:
        return own
    words = set(re.split(r"[^A-Z0-9]+", name.upper()))
    size = next((int(word.rstrip("GIB")) for word in words if re.fullmatch(r"\d+(GB|GIB|G)", word)), memory_gib)
    words |= {part for word in words for part in re.findall(r"[A-Z]+\d+(?:S$)?|NVL", word)}  # H100NVL is written in one word as well
    candidates = [card for card in CARDS if set(card.family) <= words]
    if not candidates:
        return None
    longest = max(len(card.family) for card in candidates)
    named = [card for card in candidates if len(card.family) == longest]
    if size is None:
        return named[-1]
    by_size = [card for card in CARDS if card.family[0] == named[0].family[0]] if longest == 1 else named
    return min(by_size, key=lambda card: abs(card.nominal_gib - size))


def described(name: str, memory_gib: int | None) -> Hardware:
    """What GPU_NAME and GPU_MEMORY_GIB, or a what-if question, describe. A size that is clearly below the card's own is believed."""
    card = find_card(name, memory_gib)
    if card and (memory_gib is None or memory_gib > card.nominal_gib * 0.92):
        return Hardware(card.name, card.usable_bytes, card.total_bytes, f"known card: {card.source}", card.fp8)
    size = memory_gib or 80
    return Hardware(f"{name} {size} GiB".strip(), round(size * GIB * USABLE_SHARE), size * GIB, f"nominal: {USABLE_SHARE:.1%} of {size} GiB", card.fp8 if card else "")


def live(gpus: Sequence[Gpu], count: int) -> Hardware | None:
    """The first ``count`` GPUs as the driver shows them; None when fewer tell their memory. The smallest one bounds all ranks."""
    known = [gpu for gpu in gpus if not gpu.lost and gpu.memory_total_bytes and gpu.memory_used_bytes is not None and gpu.memory_free_bytes is not None][:count]
    if not count or len(known) < count:
        return None
    name = known[0].name or "GPU"
    card = find_card(name)
    # NVML's v2 record: total = reserved + used + free; CUDA sees all but the reserved part. Older drivers count that as used.
    total = min(gpu.memory_total_bytes or 0 for gpu in known)
    usable = min((gpu.memory_used_bytes or 0) + (gpu.memory_free_bytes or 0) for gpu in known)
    if usable == total and card:
        usable = min(usable, card.usable_bytes)
    return Hardware(
        card.name if card else name,
        usable,
        total,
        f"the driver, now ({count} x {name})",
        card.fp8 if card else "",
        tuple(gpu.memory_free_bytes or 0 for gpu in known),
        tuple(gpu.index for gpu in known),
    )


def host(available_bytes: int, total_bytes: int) -> Hardware:
    """For the engine on the CPU."""
    return Hardware("CPU", available_bytes, total_bytes, "free memory of this host", "no FP8: block FP8 needs AMX (Sapphire Rapids or newer)")
