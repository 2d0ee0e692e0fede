"""Space and kind of the file systems that a run writes to, and a file server's clock."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from qwen_fp8_ops.outside import file_clock
from qwen_fp8_ops.outside.storage import Mount, mount_of
from qwen_fp8_ops.preflight import caches
from tests.preflight.site import Site, on_tmpfs

# As /proc/mounts of a compute node of an HPC site shows them.
MOUNTS = """\
/dev/nvme0n1p2 / xfs rw,relatime 0 0
tmpfs /tmp tmpfs rw,nosuid,nodev 0 0
home.example:/export/home /home nfs4 rw,relatime,vers=4.2,hard,proto=tcp 0 0
10.0.0.1@o2ib:/scratch /scratch lustre rw,flock,user_xattr 0 0
"""


@pytest.mark.parametrize(("folder", "code"), [("logs", "logs-writable"), ("run", "run-writable")])
@pytest.mark.parametrize(("size", "level"), [("8m", "fail"), ("512m", "warn")])
def test_a_disk_that_is_nearly_full(site: Site, folder: str, code: str, size: str, level: str) -> None:
    finding = site.doctor(on_tmpfs(site.home / folder, size))[code]
    assert (finding.level, finding.seen) == (level, f"only {size.removesuffix('m')} MiB free at {site.home / folder}")
    assert "QWEN_FP8_HOME" in finding.fix


def test_a_cache_without_space(site: Site) -> None:
    finding = site.doctor(on_tmpfs(site.user, "32m"))["cache-space"]
    assert (finding.level, finding.seen.partition(";")[0]) == ("warn", f"only 32 MiB free at {site.user}/.cache/vllm")
    assert "export VLLM_CACHE_ROOT=" in finding.fix


def test_a_compiled_model_needs_more_space_than_an_eager_one(site: Site) -> None:
    before = on_tmpfs(site.user, "1g")
    assert site.doctor(before)["cache-space"].level == "pass"
    assert site.doctor(before, ENFORCE_EAGER="off")["cache-space"].level == "warn"


def test_a_model_that_will_not_fit_on_the_disk(site: Site) -> None:
    (site.home / "weights").mkdir()
    found = site.doctor(on_tmpfs(site.home / "weights", "64m"), MODEL_ID="Qwen/Qwen3-VL-235B-A22B-Thinking-FP8", MODEL_PATH="weights")
    assert found["model-present"].level == "fail"
    assert found["model-disk"].level == "warn"
    assert "the model takes 237.6 GB" in found["model-disk"].seen


def test_a_cache_that_cannot_be_written(site: Site) -> None:
    (site.user / ".cache").write_text("")
    finding = site.findings()["cache-writable"]
    assert (finding.level, finding.seen) == ("fail", f"Cannot write in {site.user}/.cache/vllm")
    moved = {"HOME": str(site.user), **dict(line.removeprefix("export ").split("=", 1) for line in finding.fix.splitlines()[1:])}
    assert site.findings(moved)["cache-writable"].level == "pass"


def test_caches_on_a_file_server(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def recorded(path: Path) -> Mount | None:
        return mount_of(path, MOUNTS)

    monkeypatch.setattr(caches, "mount_of", recorded)
    finding = site.findings({"HOME": "/home/ada", "TRITON_CACHE_DIR": "/scratch/ada/triton", "TMPDIR": "/tmp"})["cache-network"]
    assert finding.level == "warn"
    assert finding.seen.endswith(
        "VLLM_CACHE_ROOT (/home/ada/.cache/vllm: nfs4), TRITON_CACHE_DIR (/scratch/ada/triton: lustre), HF_HOME (/home/ada/.cache/huggingface: nfs4)"
    )
    moved = dict(line.removeprefix("export ").split("=", 1) for line in finding.fix.splitlines()[1:])
    assert set(moved) == {"VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "HF_HOME"}
    assert site.findings({"HOME": "/home/ada", "TMPDIR": "/tmp", **moved})["cache-network"].level == "pass"


def test_caches_lie_where_their_owners_say() -> None:
    def folders(**environ: str) -> dict[str, str]:
        return {cache.key: str(cache.folder) for cache in caches.caches({"HOME": "/home/ada", "TMPDIR": "/local", **environ})}

    assert folders() == {
        "VLLM_CACHE_ROOT": "/home/ada/.cache/vllm",
        "TRITON_CACHE_DIR": "/home/ada/.triton/cache",
        "TORCHINDUCTOR_CACHE_DIR": "/local/torchinductor_ada",
        "HF_HOME": "/home/ada/.cache/huggingface",
    }
    assert folders(XDG_CACHE_HOME="/x")["VLLM_CACHE_ROOT"] == "/x/vllm"
    assert folders(VLLM_CACHE_ROOT="/v")["VLLM_CACHE_ROOT"] == "/v"


@pytest.mark.parametrize(("off", "told"), [(-37.0, "37 s ahead of"), (90.0, "90 s behind")])
def test_a_file_server_with_another_time(site: Site, monkeypatch: pytest.MonkeyPatch, off: float, told: str) -> None:
    """This host's clock is moved instead: the stamp of the file is the kernel's own."""
    monkeypatch.setattr(file_clock, "time", SimpleNamespace(time=lambda: time.time() + off))
    finding = site.findings()["clock-skew"]
    assert (finding.level, told in finding.seen) == ("warn", True)


def test_a_disk_of_this_host_has_its_time_and_is_left_clean(site: Site) -> None:
    assert site.findings()["clock-skew"].level == "pass"
    assert os.listdir(site.paths.run) == []


def test_a_check_makes_no_folders(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.paths.run.rmdir()
    assert "clock-skew" not in site.findings()
    assert not site.paths.run.exists()
