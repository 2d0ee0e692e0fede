"""Growth over time, of several lives of one process together."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from benchmarks.under_load.vitals import MIB, Sample, growth, read, serving, slope_per_second


def life(pid: int, begin: float, *, first_mib: float, mib_per_hour: float, seconds: int = 400, step: int = 10) -> list[Sample]:
    return [Sample(begin + second, "gate", pid, round((first_mib + mib_per_hour * second / 3600) * MIB), 20, 5) for second in range(0, seconds, step)]


def test_the_slope_of_a_line_is_its_own() -> None:
    assert slope_per_second([[(0, 5), (1, 7), (2, 9)]]) == pytest.approx(2)
    assert slope_per_second([[(0, 4), (10, 4)], [(50, 900), (60, 900)]]) == 0
    assert slope_per_second([[(3, 1)]]) is None
    assert slope_per_second([]) is None


def test_a_restart_is_no_growth_and_a_leak_in_both_lives_is() -> None:
    restarted = [*life(1, 0, first_mib=100, mib_per_hour=0), *life(2, 500, first_mib=700, mib_per_hour=0)]
    assert growth(restarted, 0)["memory_mib_per_hour"] == pytest.approx(0, abs=0.01)  # type: ignore[index]
    leaking = [*life(1, 0, first_mib=100, mib_per_hour=36), *life(2, 500, first_mib=90, mib_per_hour=36)]
    found = growth(leaking, 0)
    assert found and found["memory_mib_per_hour"] == pytest.approx(36, abs=0.1)
    assert found["processes"] == 2


def test_the_warm_up_of_each_life_does_not_count() -> None:
    warm = life(1, 0, first_mib=500, mib_per_hour=0)
    cold = [replace(sample, memory_bytes=10 * MIB) if sample.moment < 100 else sample for sample in warm]
    assert growth(cold, 100)["memory_mib_per_hour"] == pytest.approx(0, abs=0.01)  # type: ignore[index]
    assert growth(cold, 0)["memory_mib_per_hour"] > 1000  # type: ignore[index]


def test_an_engine_s_start_is_no_growth() -> None:
    loading = [Sample(500.0 + second, "gate", 2, second * 10 * MIB, 20, 5) for second in range(0, 60, 5)]
    samples = [*life(1, 0, first_mib=100, mib_per_hour=0), *loading, *life(2, 560, first_mib=600, mib_per_hour=0)]
    found = growth(serving(samples, [(450.0, 559.0)]), 20)
    assert found and found["memory_mib_per_hour"] == pytest.approx(0, abs=0.01) and found["processes"] == 2
    assert growth(samples, 20)["memory_mib_per_hour"] > 100  # type: ignore[index]


def test_there_is_no_slope_of_a_short_watch() -> None:
    found = growth(life(1, 0, first_mib=1, mib_per_hour=5, seconds=40), 0)
    assert found and found["memory_mib_per_hour"] is None and found["descriptors"] == 20
    assert growth([], 0) is None


def test_descriptors_that_stay_open_are_seen() -> None:
    leaking = [replace(sample, descriptors=20 + number) for number, sample in enumerate(life(1, 0, first_mib=1, mib_per_hour=0))]
    assert growth(leaking, 0)["descriptors_per_hour"] == 360  # type: ignore[index]


def test_a_real_process_is_read() -> None:
    before = read("me", os.getpid(), time.monotonic())
    held, files = bytearray(os.urandom(1 << 16)) * 512, [os.open(os.devnull, os.O_RDONLY) for _ in range(7)]
    after = read("me", os.getpid(), time.monotonic())
    for file in files:
        os.close(file)
    assert before and after
    assert after.memory_bytes - before.memory_bytes >= len(held) * 3 // 4
    assert after.descriptors - before.descriptors == 7
    assert after.threads >= 1
    assert read("nobody", 2**22 + 1, 0.0) is None
