"""Which NVIDIA driver an engine needs: a build of torch and vLLM for one CUDA runs from a certain driver on."""

from __future__ import annotations

import re

OLDEST_DRIVERS: dict[int, tuple[int, ...]] = {11: (450, 80, 2), 12: (525, 60, 13), 13: (580,)}
"""By CUDA's major version: within one, newer minor releases run too (NVIDIA, "CUDA Compatibility", minor version compatibility)."""


def oldest_driver(cuda: str) -> tuple[int, ...] | None:
    """
    Args:
        cuda: such as "13.0" or "12.8". None for one that this version does not know.
    """
    return OLDEST_DRIVERS.get(_major(cuda))


def _major(version: str) -> int:
    """0 when it is no version."""
    found = re.match(r"\d+", version)
    return int(found[0]) if found else 0


def driver_problem(driver: str | None, cuda: str | None, *, runs: str | None = None) -> tuple[str, str] | None:
    """What is wrong and what to do; None when they fit, or one of them is not known.

    Args:
        driver: the driver's version, such as "570.86.15".
        cuda: the CUDA that the installed torch was built with; None for a build for CPUs.
        runs: the newest CUDA that the driver says it runs. With NVIDIA's cuda-compat libraries on the path an old driver runs a newer one.
    """
    if runs and cuda and _major(runs) >= _major(cuda):
        return None
    oldest = oldest_driver(cuda) if cuda else None
    if not driver or not oldest or not re.fullmatch(r"\d+(\.\d+)*", driver):
        return None
    if tuple(map(int, driver.split("."))) >= oldest:
        return None
    needed = ".".join(f"{part:02}" for part in oldest)
    older = max((major for major, version in OLDEST_DRIVERS.items() if tuple(map(int, driver.split("."))) >= version), default=None)
    ways = [f"Install driver {needed} or newer (root), or ask for a node that has it."]
    if older:
        ways.append(f"Or install builds of torch and vLLM for CUDA {older} (wheels named cu{older}x).")
    return f"The installed torch is built for CUDA {cuda}, which needs driver {needed} or newer; this is driver {driver}", "\n".join(ways)
