"""The words of SLURM's answers. What is marked 22.05 was recorded from a cluster of that release; the forms of others come from SLURM's own documentation."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from qwen_fp8_ops.slurm import parse
from qwen_fp8_ops.slurm.job_details import job_details
from tests.slurm.commands import recorded


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SLURM speaks the cluster's local time."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin" if os.path.exists("/usr/share/zoneinfo/Europe/Berlin") else "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0-3", (0, 1, 2, 3)),
        ("0,2,5-6", (0, 2, 5, 6)),
        ("7", (7,)),
        ("", ()),
        (None, ()),
        ("GPU-1f2e,GPU-33aa", ()),
        ("no", ()),
        ("1-", ()),
        ("²", ()),
        ("0-99999", ()),
    ],
)
def test_indices(text: str | None, found: tuple[int, ...]) -> None:
    assert parse.indices(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("320G", 320 << 30),
        ("32768", 32 << 30),
        ("1000000M", 1_000_000 << 20),
        ("2.50T", 5 << 39),
        ("512K", 512 << 10),
        ("0", None),
        ("", None),
        (None, None),
        ("lots", None),
    ],
)
def test_memory(text: str | None, found: int | None) -> None:
    assert parse.memory_bytes(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1-02:03:04", 93784),
        ("1-02", 93600),
        ("2-00:30", 174600),
        ("24:00:00", 86400),
        ("9:57", 597),
        ("30", 1800),
        ("0:00", 0),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("NOT_SET", None),
        ("", None),
        (None, None),
    ],
)
def test_seconds(text: str | None, found: int | None) -> None:
    assert parse.seconds(text) == found


@pytest.mark.parametrize("text", ["N/A", "Unknown", "NONE", "", None, "0001-01-01T00:00:00", "\ufffd"])
def test_no_moment(text: str | None) -> None:
    assert parse.moment(text) is None


def test_a_moment_is_told_in_utc(berlin: None) -> None:
    assert parse.moment("2031-07-01T12:00:00") == "2031-07-01T10:00:00.000Z"
    assert parse.moment("2031-01-01T12:00:00") == "2031-01-01T11:00:00.000Z"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("node1", ("node1",)),
        ("node[07-09,12],gpu1", ("node07", "node08", "node09", "node12", "gpu1")),
        ("n[1-2]-ib", ("n1-ib", "n2-ib")),
        ("a,b", ("a", "b")),
        ("r[1-2]n[1-2]", ("r[1-2]n[1-2]",)),
        ("(null)", ()),
        ("", ()),
        (None, ()),
    ],
)
def test_hosts(text: str | None, found: tuple[str, ...]) -> None:
    assert parse.hosts(text) == found


def test_a_running_job_of_22_05() -> None:
    found = job_details(recorded("job-running-22.05"))
    assert found
    assert (found.state, found.partition, found.nodes, found.batch_host) == ("RUNNING", "main", ("node1",), "node1")
    assert (found.cpus, found.memory_bytes, found.gpus, found.gpu_indices) == (8, 32 << 30, 4, {"node1": (0, 1, 2, 3)})
    assert found.ends_at == parse.moment("2026-11-21T12:50:46") is not None


def test_a_pending_job_of_22_05_has_no_node_and_no_end() -> None:
    found = job_details(recorded("job-pending-22.05"))
    assert found
    assert (found.state, found.nodes, found.batch_host, found.gpus, found.gpu_indices, found.ends_at) == ("PENDING", (), None, None, {}, None)


LATER = """\
JobId=4711 JobName=qwen EndTime=2000-01-01T00:00:00
   UserId=ada(1000) GroupId=ada(1000) MCS_label=N/A
   JobState=RUNNING Reason=None Dependency=(null)
   StartTime=2031-01-01T00:00:00 EndTime=2031-01-02T00:00:00 Deadline=N/A
   Partition=gpu AllocNode:Sid=login1:77
   NodeList=gpu[03-04]
   BatchHost=gpu03
   NumNodes=2 NumCPUs=64 NumTasks=2 CPUs/Task=32 ReqB:S:C:T=0:0:*:*
   ReqTRES=cpu=64,mem=640G,node=2,billing=64,gres/gpu=12
   AllocTRES=cpu=64,mem=640G,node=2,billing=64,gres/gpu=12,gres/gpu:h100=12
   JOB_GRES=gpu:h100:12
     Nodes=gpu03 CPU_IDs=0-31 Mem=327680 GRES=gpu:h100:8(IDX:0-7)
     Nodes=gpu04 CPU_IDs=0-31 Mem=327680 GRES=gpu:h100:2(IDX:4-5),gpu:a100:2(IDX:6-7)
   MinCPUsNode=32 MinMemoryNode=320G MinTmpDiskNode=0
   Command=/home/ada/run me.sh EndTime=2000-01-01T00:00:00
   WorkDir=/home/ada/GRES=gpu:1(IDX:3) Partition=other
   TresPerNode=gres/gpu:8
"""
"""As 23.11 writes it, with a name and folders that mean harm."""


def test_a_job_of_later_releases() -> None:
    found = job_details(LATER)
    assert found
    assert (found.nodes, found.batch_host, found.partition) == (("gpu03", "gpu04"), "gpu03", "gpu")
    assert found.gpu_indices == {"gpu03": (0, 1, 2, 3, 4, 5, 6, 7), "gpu04": (4, 5, 6, 7)}
    assert (found.gpus, found.memory_bytes, found.ends_at) == (12, 640 << 30, parse.moment("2031-01-02T00:00:00"))


def test_an_old_release_wrote_the_gpus_under_another_key() -> None:
    found = job_details("JobId=1 JobName=x\n   NodeList=a\n     Nodes=a CPU_IDs=0 Mem=0 GRES_IDX=gpu(IDX:2-3)\n")
    assert found
    assert found.gpu_indices == {"a": (2, 3)}


@pytest.mark.parametrize("text", ["", "No jobs in the system\n", "slurm_load_jobs error: Invalid job id specified"])
def test_what_is_no_job(text: str) -> None:
    assert job_details(text) is None
