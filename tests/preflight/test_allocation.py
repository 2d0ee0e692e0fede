"""The allocation as a start sees it: large enough, and long enough."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from qwen_fp8_ops.outside import clock
from qwen_fp8_ops.preflight.allocation import size_bytes
from qwen_fp8_ops.preflight.checks import run_checks
from qwen_fp8_ops.preflight.finding import Finding
from qwen_fp8_ops.slurm.allocation import Allocation
from tests.preflight.site import Site

GIB = 1 << 30
JOB = Allocation("4711", "gpu", "node7", 8, None, cpus=32, memory_bytes=320 * GIB)
WANTED = {"GPU_COUNT": 8, "TENSOR_PARALLEL_SIZE": 8, "REQUIRE_SLURM": "on"}


def findings(site: Site, job: Allocation | None, **settings: Any) -> dict[str, Finding]:
    subject = site.subject(**{**WANTED, **settings})
    subject.__dict__["allocation"] = job  # what SLURM told
    return {finding.code: finding for finding in run_checks(subject)}


def ending_in(seconds: float) -> Allocation:
    return replace(JOB, ends_at=clock.iso(time.time() + seconds))


def test_an_allocation_as_asked_for_passes(site: Site) -> None:
    found = {code: finding for code, finding in findings(site, ending_in(86_400)).items() if code.startswith("slurm-")}
    assert {code: finding.level for code, finding in found.items()} == dict.fromkeys(
        ("slurm-allocation", "slurm-gpus", "slurm-memory", "slurm-cpus", "slurm-time"), "pass"
    )
    assert found["slurm-allocation"].seen == "inside job 4711 on node7"


# fmt: off
LACKS: list[tuple[dict[str, Any], str, str, str]] = [
    ({"gpus": 4}, "slurm-gpus", "fail", "Job 4711 has 4 GPUs, GPU_COUNT=8"),
    ({"memory_bytes": 64 * GIB}, "slurm-memory", "warn", "Job 4711 has 64 GiB of host memory, SLURM_MEM=320G: loading may be ended for want of memory"),
    ({"cpus": 4}, "slurm-cpus", "warn", "Job 4711 has 4 CPUs, SLURM_CPUS=32: images are prepared more slowly"),
    ({"on_node": False}, "slurm-allocation", "fail", "Job 4711 has node7, and this shell is not on it"),
    ({"problem": "scontrol gave no answer in 12 s"}, "slurm-allocation", "warn", "Inside job 4711, and SLURM does not tell more: scontrol gave no answer in 12 s"),
]
# fmt: on


@pytest.mark.parametrize(("changed", "code", "level", "seen"), LACKS)
def test_what_an_allocation_lacks(site: Site, changed: dict[str, Any], code: str, level: str, seen: str) -> None:
    finding = findings(site, replace(JOB, **changed))[code]
    assert (finding.level, finding.seen) == (level, seen)
    assert finding.fix


def test_what_slurm_does_not_tell_is_not_judged(site: Site) -> None:
    found = findings(site, replace(JOB, gpus=None, cpus=None, memory_bytes=None))
    assert {code for code in found if code.startswith("slurm-")} == {"slurm-allocation"}


def test_no_allocation_at_all(site: Site) -> None:
    finding = findings(site, None)["slurm-allocation"]
    assert (finding.level, finding.seen) == ("fail", "Not inside a SLURM allocation")


@pytest.mark.parametrize(("left", "level"), [(60, "fail"), (400, "warn"), (7200, "pass")])
def test_the_time_left_is_held_against_the_load(site: Site, left: float, level: str) -> None:
    finding = findings(site, ending_in(left))["slurm-time"]
    assert finding.level == level
    assert finding.seen.endswith("(estimated)")
    assert (level == "pass") == (not finding.fix)


def test_a_measured_load_counts_more_than_an_estimate(site: Site) -> None:
    times = {f"{site.home}/model tp8": 1500.0, f"{site.home}/model tp4": 9000.0, f"{site.home}/another tp8": 9000.0}
    site.paths.load_times.write_text(json.dumps(times))
    finding = findings(site, ending_in(1200))["slurm-time"]
    assert (finding.level, finding.seen) == ("fail", "20 min are left of job 4711; loading takes 25 min (as measured)")
    site.paths.load_times.write_text("damaged")
    assert findings(site, ending_in(1200))["slurm-time"].level == "pass"


@pytest.mark.parametrize(("text", "size"), [("320G", 320 << 30), ("300000", 300_000 << 20), ("1T", 1 << 40), ("512M", 512 << 20), ("64K", 64 << 10)])
def test_sizes_as_slurm_takes_them(text: str, size: int) -> None:
    assert size_bytes(text) == size
