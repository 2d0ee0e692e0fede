from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from qwen_fp8_ops.outside.host_memory import available_bytes, oom_kills, total_bytes

MIB = 1 << 20
HOST_BYTES = psutil.virtual_memory().total


def group(folder: Path, names: tuple[str, str, str], limit: str, used: int, cache: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cache}\n")


V2 = ("memory.max", "memory.current", "file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache")


def test_a_job_gets_what_its_group_leaves(tmp_path: Path) -> None:
    group(tmp_path / "slurm/job_7/step_0", V2, "max", 30 * MIB)
    group(tmp_path / "slurm/job_7", V2, str(100 * MIB), 90 * MIB, cache=50 * MIB)
    assert available_bytes(tmp_path, "0::/slurm/job_7/step_0\n") == 60 * MIB  # pages of files can go


def test_the_tightest_group_counts(tmp_path: Path) -> None:
    group(tmp_path / "a", V2, str(50 * MIB), 10 * MIB)
    group(tmp_path / "a/b", V2, str(80 * MIB), 10 * MIB)
    assert available_bytes(tmp_path, "0::/a/b\n") == 40 * MIB


def test_the_first_version_of_groups(tmp_path: Path) -> None:
    group(tmp_path / "memory/slurm/uid_1", V1, str(64 * MIB), 20 * MIB, cache=4 * MIB)
    assert available_bytes(tmp_path, "7:cpu,cpuacct:/x\n5:memory:/slurm/uid_1\n") == 48 * MIB


@pytest.mark.parametrize("memberships", ["", "0::/\n", "0::/gone\n", "5:memory:/\n", "nonsense\n"])
def test_without_a_limit_it_is_the_hosts(tmp_path: Path, memberships: str) -> None:
    assert 0 < available_bytes(tmp_path, memberships) <= HOST_BYTES == total_bytes()


def test_a_group_over_its_limit_leaves_nothing(tmp_path: Path) -> None:
    group(tmp_path / "a", V2, str(10 * MIB), 12 * MIB)
    assert available_bytes(tmp_path, "0::/a\n") == 0


def test_processes_that_the_kernel_killed_in_our_group_are_counted(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job/memory.events").write_text("low 0\nhigh 0\nmax 31\noom 2\noom_kill 3\noom_group_kill 0\n")
    assert oom_kills(tmp_path, "0::/job\n") == 3
    (tmp_path / "memory/job").mkdir(parents=True)
    (tmp_path / "memory/job/memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    assert oom_kills(tmp_path, "5:memory:/job\n0::/\n") == 5


@pytest.mark.parametrize("memberships", ["", "0::/\n", "0::/gone\n", "nonsense\n"])
def test_where_nobody_counts_kills_there_are_none(tmp_path: Path, memberships: str) -> None:
    assert oom_kills(tmp_path, memberships) == 0
