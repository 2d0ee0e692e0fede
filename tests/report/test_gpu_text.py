"""The bars: what a person sees at 80 and at 160 columns, with and without Unicode."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.report.gpu_text import bar, render_gpus
from qwen_fp8_ops.report.screen import Screen
from tests.report.test_text import COMPARED, GIB, GPU, OTHER_GPU, STRANGER

REPORT: dict[str, Any] = {
    "gpus": [
        *({**GPU, "index": index, "ranks": [index]} for index in range(6)),
        {
            **GPU,
            "index": 6,
            "lost": True,
            "memory_total_bytes": None,
            "memory_used_bytes": None,
            "ranks": [],
            "parts": None,
            "problems": ["GPU is lost"],
            "notes": [],
        },
        {**OTHER_GPU, "index": 7, "ours": True, "utilization_percent": 3},
    ],
    "driver": {"source": "nvml", "version": "580.95.05", "cuda_version": "13.0"},
    "distribution": {"imbalance_percent": 0.4, "against_plan": [COMPARED]},
}


def bars(lines: list[str]) -> list[str]:
    return [line[line.index("[") + 1 : line.index("]")] for line in lines if line.startswith("GPU ") and "]" in line]


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_every_line_fits_and_all_bars_are_of_one_length(width: int, unicode: bool) -> None:
    lines = render_gpus(REPORT, Screen(width, unicode))
    assert [line for line in lines if len(line) > max(width, 80)] == []
    rows = [line for line in lines if line.startswith("GPU ") and "]" in line]
    assert max(map(len, rows)) <= width
    drawn = bars(lines)
    assert len(drawn) == 7
    assert len({len(one) for one in drawn}) == 1
    assert unicode or all(line.isascii() for line in lines)


def test_a_wide_terminal_has_longer_bars() -> None:
    narrow, wide = (len(bars(render_gpus(REPORT, Screen(width)))[0]) for width in (80, 160))
    assert (narrow >= 20, wide) == (True, 80)


def test_a_lost_gpu_stands_among_the_others_and_says_so() -> None:
    lines = render_gpus(REPORT, Screen(80, unicode=False))
    assert lines[7] == "GPU 6 ! GPU is lost"
    assert lines[0] == "8 x NVIDIA H100 80GB HBM3, driver 580.95.05, CUDA up to 13.0"


def test_ascii_marks_stand_for_the_same_parts() -> None:
    plain, fancy = (bars(render_gpus(REPORT, Screen(120, unicode)))[0] for unicode in (False, True))
    table = str.maketrans("█▓▒◆·", "#=+x.")
    # The sign of degrees makes no difference here: both are of a length of their own.
    assert set(fancy.translate(table)) == set(plain) == set("#=+?.")


def test_without_parts_our_memory_is_one_block_and_the_legend_says_ours() -> None:
    report = {**REPORT, "gpus": [{**GPU, "parts": None}]}
    lines = render_gpus(report, Screen(100, unicode=False))
    assert set(bars(lines)[0]) == set("#?.")
    assert "# ours" in lines[2]
    assert "weights" not in lines[2]


def test_equal_notes_are_told_once() -> None:
    assert "GPU 0,1,2,3,4,5: at its power cap" in render_gpus(REPORT, Screen(100))


@pytest.mark.parametrize(
    ("process", "line"),
    [
        (STRANGER, "GPU 0: pid 4711 (eve) holds 5.00 GiB: python train.py"),
        ({**STRANGER, "user": None, "command": None}, "GPU 0: pid 4711 (?) holds 5.00 GiB: no such pid is in this namespace"),
        ({**STRANGER, "memory_bytes": None}, "GPU 0: pid 4711 (eve) holds ? GiB: python train.py"),
        ({**STRANGER, "command": "\x1b[2Jrm\n-rf é"}, "GPU 0: pid 4711 (eve) holds 5.00 GiB: ?[2Jrm?-rf ?"),
        ({**STRANGER, "command": ""}, "GPU 0: pid 4711 (eve) holds 5.00 GiB: ?"),
        ({**STRANGER, "command": "x" * 200}, "GPU 0: pid 4711 (eve) holds 5.00 GiB: " + "x" * 39 + "..."),
    ],
)
def test_a_stranger_is_named_and_cannot_write_on_our_screen(process: dict[str, Any], line: str) -> None:
    report = {**REPORT, "gpus": [{**GPU, "processes": [process]}]}
    assert line in render_gpus(report, Screen(80, unicode=False))


def test_little_that_nobody_holds_is_the_drivers_own() -> None:
    report = {**REPORT, "gpus": [{**GPU, "unattributed_bytes": 400 << 20}]}
    assert not any("no process" in line for line in render_gpus(report, Screen()))


def test_nvidia_smi_is_named_as_the_source() -> None:
    report = {**REPORT, "driver": {"source": "nvidia-smi", "version": "580.95.05", "cuda_version": None}}
    assert render_gpus(report, Screen())[0] == "8 x NVIDIA H100 80GB HBM3, driver 580.95.05, read from nvidia-smi: NVML does not answer"


def test_no_gpus_are_no_lines() -> None:
    assert render_gpus({"gpus": [], "driver": None, "distribution": None}, Screen()) == []


sizes = st.integers(0, 80 * GIB)


@given(cells=st.integers(8, 80), own=sizes, foreign=sizes, unattributed=sizes, weights=st.none() | sizes)
def test_a_bar_has_all_its_cells_whatever_is_in_it(cells: int, own: int, foreign: int, unattributed: int, weights: int | None) -> None:
    gpu = copy.deepcopy({**GPU, "own_bytes": own, "foreign_bytes": foreign, "unattributed_bytes": unattributed})
    gpu["parts"] = None if weights is None else {"weights_bytes": weights, "kv_cache_bytes": own, "graphs_bytes": 0, "rest_bytes": 0}
    drawn = bar(gpu, cells, Screen(unicode=False))
    assert len(drawn) == cells
    order = [mark for mark in "#=+x?." if mark in drawn]
    assert "".join(order) == "".join(dict.fromkeys(drawn))  # the parts stand in their order
    if foreign and own + (weights or 0) < 79 * GIB:
        assert "x" in drawn
