from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.outside.nvml import Gpu, GpuProcess
from qwen_fp8_ops.outside.owner import Owner
from qwen_fp8_ops.report.gpu_memory import Compared, GpuMemory, Parts, RankMemory, compare, distribute, imbalance_percent

GIB = 1 << 30
LOGGED = {
    "weights_bytes_per_rank": 29 * GIB,
    "weights_bytes_by_rank": [28 * GIB, 29 * GIB],
    "kv_cache_bytes_per_rank": 36 * GIB,
    "graphs_bytes_per_rank": GIB,
}
RANKS = {10: 0, 11: 1, 9: None}
EVE = Owner("eve", "python train.py")


def gpu(index: int, used: int | None, *processes: tuple[int, int | None]) -> Gpu:
    """Sizes in GiB."""
    held = tuple(GpuProcess(pid, None if size is None else size * GIB) for pid, size in processes)
    return Gpu(index, memory_total_bytes=80 * GIB, memory_used_bytes=None if used is None else used * GIB, processes=held)


def spread(*gpus: Gpu, memory: dict[str, Any] | None = None, visible: tuple[Gpu, ...] | None = None) -> tuple[GpuMemory, ...]:
    return distribute(
        gpus, RANKS, visible=gpus if visible is None else visible, memory=RankMemory.logged(memory), owner_of=lambda pid: EVE if pid == 66 else None
    )


def test_each_byte_is_ours_a_strangers_or_nobodys() -> None:
    (one,) = spread(gpu(0, 76, (10, 69), (9, 1), (66, 3), (77, 2)))
    assert (one.own_bytes, one.foreign_bytes, one.unattributed_bytes) == (70 * GIB, 5 * GIB, GIB)
    assert [(holder.pid, holder.ours, holder.rank, holder.owner) for holder in one.holders] == [
        (10, True, 0, None),
        (9, True, None, None),
        (66, False, None, EVE),
        (77, False, None, None),
    ]
    assert (one.ranks, one.ours) == ((0,), True)


def test_what_the_driver_does_not_tell_of_a_process_is_nobodys() -> None:
    (one,) = spread(gpu(0, 70, (10, None)), memory=LOGGED)
    assert (one.own_bytes, one.unattributed_bytes, one.ranks, one.parts) == (0, 70 * GIB, (0,), None)


def test_without_a_reading_of_the_memory_nothing_is_unattributed() -> None:
    (one,) = spread(gpu(0, None))
    assert (one.own_bytes, one.unattributed_bytes, one.parts) == (0, None, None)


def test_processes_that_hold_more_than_is_used_leave_nothing_unattributed() -> None:
    assert spread(gpu(0, 5, (66, 6)))[0].unattributed_bytes == 0


def test_a_gpu_outside_what_we_may_use_is_shown_apart_unless_a_rank_of_ours_is_on_it() -> None:
    zero, one, two = gpu(0, 0), gpu(1, 0, (66, 1)), gpu(2, 70, (11, 70))
    assert [found.ours for found in spread(zero, one, two, visible=(zero,))] == [True, False, True]


def test_our_part_is_split_as_the_engine_logged_each_rank() -> None:
    zero, one = spread(gpu(0, 70, (10, 69)), gpu(1, 70, (11, 70)), memory=LOGGED)
    assert zero.parts == Parts(28 * GIB, 36 * GIB, GIB, 4 * GIB)
    assert one.parts == Parts(29 * GIB, 36 * GIB, GIB, 4 * GIB)


def test_two_ranks_on_one_gpu_have_twice_the_parts() -> None:
    (one,) = spread(gpu(0, 80, (10, 65), (11, 70)), memory=LOGGED)
    assert (one.ranks, one.parts) == ((0, 1), Parts(57 * GIB, 72 * GIB, 2 * GIB, 4 * GIB))


@pytest.mark.parametrize(
    ("memory", "held", "parts"),
    [
        (None, 10, None),
        ({**LOGGED, "kv_cache_bytes_per_rank": None, "graphs_bytes_per_rank": None}, 30, Parts(28 * GIB, 0, 0, 2 * GIB)),
        (LOGGED, 20, Parts(20 * GIB, 0, 0, 0)),
        (LOGGED, 40, Parts(28 * GIB, 12 * GIB, 0, 0)),
        ({**LOGGED, "graphs_bytes_per_rank": -GIB // 2}, 66, Parts(28 * GIB, 36 * GIB, 0, 2 * GIB)),
        ({**LOGGED, "weights_bytes_by_rank": []}, 70, Parts(29 * GIB, 36 * GIB, GIB, 4 * GIB)),
    ],
)
def test_while_it_loads_the_parts_grow(memory: dict[str, Any] | None, held: int, parts: Parts | None) -> None:
    assert spread(gpu(0, 80, (10, held)), memory=memory)[0].parts == parts


@given(held=st.integers(1, 80), weights=st.integers(0, 90), kv=st.none() | st.integers(0, 90), graphs=st.none() | st.integers(-2, 9))
def test_the_parts_are_all_of_what_we_hold(held: int, weights: int, kv: int | None, graphs: int | None) -> None:
    memory = {"weights_bytes_per_rank": weights, "kv_cache_bytes_per_rank": kv, "graphs_bytes_per_rank": graphs}
    parts = spread(gpu(0, 80, (10, held)), memory=memory)[0].parts
    assert parts
    sizes = (parts.weights_bytes, parts.kv_cache_bytes, parts.graphs_bytes, parts.rest_bytes)
    assert sum(sizes) == held * GIB
    assert min(sizes) >= 0


def test_imbalance_is_of_the_gpus_that_hold_our_ranks() -> None:
    assert imbalance_percent(spread(gpu(0, 70, (10, 50)), gpu(1, 70, (11, 51)), gpu(2, 70, (9, 1)))) == 2.0
    assert imbalance_percent(spread(gpu(0, 70, (10, 50)), gpu(1, 70))) is None
    assert imbalance_percent(()) is None


PLANNED = {"weights_bytes_per_rank": 29 * GIB, "kv_cache_bytes_per_rank": 40 * GIB, "overhead_bytes_per_rank": 4 * GIB}


def test_the_fullest_rank_is_compared_with_the_plan() -> None:
    found = compare(spread(gpu(0, 70, (10, 69)), gpu(1, 70, (11, 70)), memory=LOGGED), PLANNED)
    assert found == (Compared("weights", 29 * GIB, 29 * GIB), Compared("KV cache", 40 * GIB, 36 * GIB), Compared("overhead", 4 * GIB, 5 * GIB))
    assert [one.difference_percent for one in found] == [0.0, -10.0, 25.0]
    assert Compared("overhead", 0, GIB).difference_percent is None


@pytest.mark.parametrize(("memory", "planned"), [(LOGGED, None), (None, PLANNED), ({**LOGGED, "kv_cache_bytes_per_rank": None}, PLANNED)])
def test_nothing_is_compared_before_both_are_known(memory: dict[str, Any] | None, planned: dict[str, Any] | None) -> None:
    assert compare(spread(gpu(0, 70, (10, 69)), memory=memory), planned) == ()
