"""One real cluster of three nodes for all tests of this folder that ask for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_fp8_ops.slurm import submit
from qwen_fp8_ops.slurm.script import Submission, sbatch_script
from tests.slurm.cluster import Cluster
from tests.slurm.job_service import JobService
from tests.slurm.packages import why_not_here


@pytest.fixture(scope="session")
def three_nodes() -> Iterator[Cluster]:
    reason = why_not_here()
    if reason:
        pytest.skip(reason)
    cluster = Cluster(nodes=3)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


@pytest.fixture
def cluster(three_nodes: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """This process speaks to the cluster, as a shell on its login node would."""
    for name in [*os.environ]:
        if name not in three_nodes.environ:
            monkeypatch.delenv(name)
    for name, value in three_nodes.environ.items():
        monkeypatch.setenv(name, value)
    return three_nodes


@pytest.fixture
def service(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobService]:
    """Submitted by the real verb, with the real script, but for the program that it runs at its end."""
    job = JobService(cluster, tmp_path / "it's a run")

    def script(submission: Submission) -> str:
        lines = sbatch_script(submission).splitlines()
        assert lines[-1].startswith("exec ")
        return "\n".join([*lines[:-1], job.standin_line(submission.paths.home)]) + "\n"

    monkeypatch.setattr(submit, "sbatch_script", script)
    yield job
    job.close()
