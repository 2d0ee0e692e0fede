"""The host: real limits in child processes, real file systems for shared memory, real processes for leftovers."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from qwen_fp8_ops.outside import lock, process
from qwen_fp8_ops.outside.limits import Limit
from tests.preflight.site import Site, on_tmpfs, running, taken


@pytest.mark.parametrize(("count", "level"), [(128, "fail"), (1024, "warn"), (4096, "pass")])
def test_few_open_files(site: Site, count: int, level: str) -> None:
    finding = site.doctor(limits={resource.RLIMIT_NOFILE: count})["ulimit-nofile"]
    assert finding.level == level
    assert str(count) in finding.seen
    assert (level == "pass") == (not finding.fix)


@pytest.mark.parametrize(
    ("soft", "hard", "count"), [(1024, 4096, 1024), (1024, 65_535, 65_535), (1024, None, 65_535), (100_000, 200_000, 100_000), (None, None, None)]
)
def test_an_engine_raises_its_own_limit_or_keeps_it(soft: int | None, hard: int | None, count: int | None) -> None:
    assert Limit(soft, hard).raised_to(65_535) == count


GPUS = {"GPU_COUNT": 2, "TENSOR_PARALLEL_SIZE": 2, "REQUIRE_SLURM": "off"}


def test_little_memory_that_may_be_pinned_matters_to_several_gpus(site: Site) -> None:
    limits = {resource.RLIMIT_MEMLOCK: 8 << 20}
    finding = site.doctor(limits=limits, **GPUS)["ulimit-memlock"]
    assert (finding.level, finding.seen.partition(":")[0]) == ("warn", "Only 8192 KiB of memory may be pinned")
    assert finding.fix.startswith("ulimit -l unlimited\n")
    assert site.doctor(limits=limits)["ulimit-memlock"].level == "pass"


@pytest.mark.parametrize(("size", "level"), [("64m", "fail"), ("300m", "warn"), ("1g", "pass")])
def test_small_shared_memory(site: Site, size: str, level: str) -> None:
    finding = site.doctor(on_tmpfs(Path("/dev/shm"), size))["shm-size"]
    assert finding.level == level
    assert level == "pass" or "--shm-size=8g" in finding.fix


def test_each_worker_needs_shared_memory_of_its_own(site: Site) -> None:
    before = on_tmpfs(Path("/dev/shm"), "1g")
    assert site.doctor(before, GPU_COUNT=8, TENSOR_PARALLEL_SIZE=8)["shm-size"].seen == "1024 MiB are free in /dev/shm, the engine's processes may fill 2080"


def test_too_little_memory_for_the_processes(site: Site) -> None:
    finding = site.findings(CPU_KV_CACHE_GIB=1024)["host-memory"]
    assert finding.level == "fail"
    assert finding.seen.endswith("the engine's processes take about 1027")


def test_weights_that_do_not_fit_into_memory_are_read_at_every_start(site: Site) -> None:
    with (site.home / "model" / "large.safetensors").open("w") as file:
        file.truncate(4 << 40)  # sparse: it takes no space
    finding = site.findings()["host-memory"]
    assert finding.level == "warn"
    assert "less than the 4096 GiB of weights: they are read from the disk at every start" in finding.seen


def test_what_an_earlier_run_left_is_named(site: Site) -> None:
    with running("-c", "input()", environ={"QWEN_FP8_RUN": str(site.paths.run)}) as left:
        finding = site.findings()["leftovers"]
        assert (finding.level, finding.fix) == ("warn", "./stop_service.sh ends them, and so does the next start.")
        assert f"pid {left.pid} (" in finding.seen
        assert "leftovers" not in Site(site.home.parent / "another").findings()


def test_a_running_service_is_no_leftover_and_its_ports_are_its_own(site: Site) -> None:
    with taken(site.settings["PORT"], {"QWEN_FP8_RUN": str(site.paths.run)}) as pid:
        assert site.findings()["engine0-port"].level == "fail"
        identity = process.identify(pid)
        assert identity
        assert lock.acquire(site.paths.lock, identity) is None
        found = site.findings()
    assert "leftovers" not in found
    assert (found["engine0-port"].level, found["engine0-port"].seen) == (
        "pass",
        f"port {site.settings['PORT']} is this service's own, which is running (pid {pid})",
    )
    assert found["host-memory"].seen.startswith("the service is running")
