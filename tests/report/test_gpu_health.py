from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from qwen_fp8_ops.outside.nvml import Gpu
from qwen_fp8_ops.report.gpu_health import notes_of, problems_of

WELL = Gpu(3, ecc_uncorrected=0, remap_pending=False, remap_failed=False, mig_enabled=False, nvlinks_up=18, nvlinks_down=0, clocks_event_reasons=("idle",))


@pytest.mark.parametrize("gpu", [WELL, Gpu(3)])
def test_a_gpu_that_is_well_or_tells_nothing_has_no_problem(gpu: Gpu) -> None:
    assert (problems_of(gpu), notes_of(gpu)) == ((), ())


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"lost": True, "problems": ("GPU is lost",)}, "gpu-lost", "GPU is lost"),
        ({"problems": ("Unknown Error",)}, "gpu-reading", "Unknown Error"),
        ({"ecc_uncorrected": 1}, "gpu-ecc", "1 uncorrected ECC error since"),
        ({"ecc_uncorrected": 2}, "gpu-ecc", "2 uncorrected ECC errors since"),
        ({"remap_pending": True}, "gpu-remap-pending", "waits for a reset"),
        ({"remap_failed": True}, "gpu-remap-failed", "cannot be remapped"),
        ({"clocks_event_reasons": ("hw-slowdown", "hw-thermal", "sw-thermal")}, "gpu-slowdown", "hardware slowdown, too hot"),
        ({"clocks_event_reasons": ("hw-power-brake",)}, "gpu-slowdown", "power brake"),
    ],
)
def test_a_problem_is_named_with_its_remedy(change: dict[str, Any], code: str, words: str) -> None:
    (problem,) = problems_of(replace(WELL, **change))
    assert (problem.code, words in problem.message, bool(problem.fix)) == (code, True, True)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"mig_enabled": True}, "MIG is on"),
        ({"nvlinks_down": 2, "nvlinks_up": 16}, "2 of 18 NVLinks down"),
        ({"clocks_event_reasons": ("sw-thermal",)}, "clocks lowered for heat"),
        ({"clocks_event_reasons": ("power-cap",)}, "at its power cap"),
    ],
)
def test_what_is_only_worth_knowing_is_a_note(change: dict[str, Any], note: str) -> None:
    gpu = replace(WELL, **change)
    assert (notes_of(gpu), problems_of(gpu)) == ((note,), ())
