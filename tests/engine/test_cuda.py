from __future__ import annotations

import pytest

from qwen_fp8_ops.engine.cuda import driver_problem


@pytest.mark.parametrize(
    ("driver", "cuda"), [("580.95.05", "13.0"), ("580", "13.0"), ("590.1", "13.2"), ("525.60.13", "12.8"), ("450.80.02", "11.8"), ("580.95.05", "12.9")]
)
def test_a_driver_that_is_new_enough(driver: str, cuda: str) -> None:
    assert driver_problem(driver, cuda) is None


@pytest.mark.parametrize(("driver", "cuda"), [(None, "13.0"), ("580.95.05", None), ("570.1", "14.0"), ("unknown", "13.0"), ("570.1", "none")])
def test_what_is_not_known_is_no_problem(driver: str | None, cuda: str | None) -> None:
    assert driver_problem(driver, cuda) is None


@pytest.mark.parametrize(
    ("driver", "cuda", "needed", "other"),
    [
        ("570.86.15", "13.0", "580", "CUDA 12 (wheels named cu12x)"),
        ("525.60.12", "12.8", "525.60.13", "CUDA 11"),
        ("470.256.02", "13.0", "580", "CUDA 11"),
        ("440.33", "11.8", "450.80.02", ""),
    ],
)
def test_a_driver_that_is_too_old_is_told_with_both_ways_out(driver: str, cuda: str, needed: str, other: str) -> None:
    found = driver_problem(driver, cuda)
    assert found
    message, fix = found
    assert message == f"The installed torch is built for CUDA {cuda}, which needs driver {needed} or newer; this is driver {driver}"
    assert f"Install driver {needed} or newer" in fix
    assert (f"builds of torch and vLLM for {other}" in fix) if other else "Or install" not in fix


def test_an_old_driver_with_the_compatibility_libraries_runs_a_newer_cuda() -> None:
    assert driver_problem("550.54.15", "13.0", runs="13.1") is None
    assert driver_problem("550.54.15", "13.0", runs="12.4") is not None
    assert driver_problem("550.54.15", "13.0", runs=None) is not None
