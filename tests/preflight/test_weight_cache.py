"""WEIGHT_CACHE=on is refused where weights cannot be kept, with the reason and a way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.engine import version
from tests.preflight.site import Site

ON = {"WEIGHT_CACHE": "on"}
GPUS = {**ON, "GPU_COUNT": 1, "REQUIRE_SLURM": "off"}


def test_off_is_nothing_to_speak_of(site: Site) -> None:
    assert "weight-cache" not in site.findings()


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        (ON, "WEIGHT_CACHE=on: there is no GPU (GPU_COUNT=0)"),
        ({**GPUS, "VLLM_EXTRA_ARGS": "--seed 3 --load-format=dummy"}, "--load-format=dummy in VLLM_EXTRA_ARGS does not go together with WEIGHT_CACHE=on"),
        ({**GPUS, "VLLM_EXTRA_ARGS": "--enable_sleep_mode"}, "--enable_sleep_mode in VLLM_EXTRA_ARGS does not go together"),
    ],
)
def test_settings_that_cannot_be(site: Site, settings: dict[str, Any], seen: str) -> None:
    finding = site.findings(**settings)["weight-cache"]
    assert (finding.level, finding.seen[: len(seen)]) == ("fail", seen)
    assert finding.fix.endswith("Set WEIGHT_CACHE=off.")


@pytest.mark.parametrize(
    ("installed", "level"), [("0.30.2", "fail"), ("0.31.0", "pass"), ("0.32.0+cpu", "pass"), ("1.0.0", "pass"), ("dev", "pass"), (None, "pass")]
)
def test_a_vllm_without_preload_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch, installed: str | None, level: str) -> None:
    monkeypatch.setattr(version, "installed", lambda: installed)
    finding = site.findings(**GPUS)["weight-cache"]
    assert finding.level == level
    assert level == "pass" or "has no `vllm preload`; 0.31 is the first that has" in finding.seen


def test_a_folder_of_somebody_else_is_refused(site: Site, tmp_path: Path) -> None:
    sockets = site.paths.weight_sockets
    assert site.findings(**GPUS)["weight-cache"].level == "pass"
    sockets.symlink_to(tmp_path)
    try:
        finding = site.findings(**GPUS)["weight-cache"]
    finally:
        sockets.unlink()
    assert finding.seen == f"{sockets}, where the weight cache would listen, belongs to somebody else or is no folder"
    assert finding.fix.splitlines()[0] == f"ls -ld {sockets}"


def test_the_names_of_its_sockets_are_short_enough(site: Site) -> None:
    longest = "vllm_weight_cache_" + "0" * 64 + ".sock"  # as under FIPS, which has no MD5
    assert len(str(site.paths.weight_sockets / longest)) <= 107
