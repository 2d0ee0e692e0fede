from __future__ import annotations

import pytest

from qwen_fp8_ops.outside.nvml import Gpu
from qwen_fp8_ops.plan.cards import CARDS, GIB, MIB, described, find_card, live


@pytest.mark.parametrize(
    ("name", "size", "card"),
    [
        ("H100 80GB", None, "H100-80"),
        ("NVIDIA H100 80GB HBM3", None, "H100-80"),
        ("h100", None, "H100-80"),
        ("H100-80", None, "H100-80"),
        ("H100", 80, "H100-80"),
        ("H100", 94, "H100-NVL"),
        ("NVIDIA H100 NVL", None, "H100-NVL"),
        ("H100-NVL", 80, "H100-NVL"),
        ("H100NVL", None, "H100-NVL"),
        ("NVIDIA A100-SXM4-40GB", None, "A100-40"),
        ("A100-40", None, "A100-40"),
        ("A100 40GB", 80, "A100-40"),
        ("NVIDIA A100 80GB PCIe", None, "A100-80"),
        ("A100", 40, "A100-40"),
        ("A100", None, "A100-80"),
        ("NVIDIA H200", 80, "H200-141"),
        ("H200-141", None, "H200-141"),
        ("NVIDIA B200", None, "B200"),
        ("NVIDIA L40S", None, "L40S"),
    ],
)
def test_a_card_is_found_by_any_of_its_names(name: str, size: int | None, card: str) -> None:
    found = find_card(name, size)
    assert found is not None
    assert found.name == card


@pytest.mark.parametrize("name", ["", "RTX 4090", "V100", "H1000", "L40", "GB2000"])
def test_another_card_is_not_taken_for_one(name: str) -> None:
    assert find_card(name, 80) is None


def test_what_a_card_gives_is_less_than_nvmls_total_and_says_who_measured() -> None:
    for card in CARDS:
        assert 0.9 < card.usable_bytes / card.total_bytes < 1
        assert "nvidia-smi" in card.source or "nominal" in card.source
        assert card.fp8
    assert [card.name for card in CARDS] == ["A100-40", "A100-80", "H100-80", "H100-NVL", "H200-141", "B200", "L40S"]


def test_ampere_has_fp8_weights_only() -> None:
    assert "weights only" in described("A100 80GB", None).fp8
    assert "weights only" not in described("H100", None).fp8


@pytest.mark.parametrize(
    ("name", "size", "usable_gib"),
    [("H100", 80, 79.18), ("H100", None, 79.18), ("H200", 80, 78.8), ("L40S", 80, 44.4), ("MI300", 192, 189.12), ("", 80, 78.8), ("A100", 20, 19.7)],
)
def test_a_description_gives_what_the_card_has_and_never_more_than_was_said(name: str, size: int | None, usable_gib: float) -> None:
    assert described(name, size).usable_bytes / GIB == pytest.approx(usable_gib, rel=1e-3)


def gpu(index: int, used_mib: int = 0, total_mib: int = 81559, **more: object) -> Gpu:
    facts: dict[str, object] = {"uuid": f"GPU-{index}", "name": "NVIDIA H100 80GB HBM3"}
    sizes = {"memory_total_bytes": total_mib * MIB, "memory_used_bytes": used_mib * MIB, "memory_free_bytes": (total_mib - 479 - used_mib) * MIB}
    return Gpu(index, **{**facts, **sizes, **more})  # type: ignore[arg-type]


def test_what_the_driver_keeps_is_no_part_of_a_live_gpu() -> None:
    found = live([gpu(0), gpu(1, used_mib=5000)], 2)
    assert found is not None
    assert found.name == "H100-80"
    assert found.usable_bytes == 81080 * MIB
    assert found.free_bytes == (81080 * MIB, 76080 * MIB)
    assert found.is_live


def test_the_smallest_gpu_bounds_all() -> None:
    found = live([gpu(0), gpu(1, total_mib=40960)], 2)
    assert found is not None
    assert found.usable_bytes == (40960 - 479) * MIB


@pytest.mark.parametrize("gpus", [[], [gpu(0)], [gpu(0), gpu(1, lost=True)], [gpu(0), gpu(1, memory_free_bytes=None)]])
def test_too_few_live_gpus_are_none(gpus: list[Gpu]) -> None:
    assert live(gpus, 2) is None
