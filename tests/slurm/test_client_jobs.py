"""Captions as jobs of a real cluster: an array of shares, the job that puts them together, and a job whose time runs out."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_fp8_ops.cli import run
from tests.batch.quick_server import FOLDER, answer, serving
from tests.batch.scenery import make_images
from tests.slurm.cluster import Cluster
from tests.waiting import wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

PATIENCE_SECONDS = 300
SMALL = ["--mem", "300M", "--cpus", "1"]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the user stands, with a space and a quote in its name; the job's home lies in it."""
    folder = Path(tempfile.mkdtemp(prefix="ada's captions ", dir="/tmp"))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("QWEN_FP8_HOME", str(folder / "home"))
    (folder / "home").mkdir()
    yield folder
    shutil.rmtree(folder)


def submitted(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, str]:
    code = run(["submit", "--caption", "--json", *SMALL, "--dataset-path", "images", *words])
    out, err = capsys.readouterr()
    assert code == 0, out + err
    told: dict[str, str] = json.loads(out)
    return told


def ended(cluster: Cluster, job_id: str) -> None:
    wait_for(lambda: not cluster.run(["squeue", "-h", "-t", "PENDING,RUNNING,COMPLETING", "-j", job_id]).stdout.strip(), f"job {job_id} ends", PATIENCE_SECONDS)


def logs(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted((folder / "home/logs").glob("*.log")))


def test_an_array_makes_one_result(cluster: Cluster, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_images(folder / "images", 12)
    with serving() as server:
        told = submitted(capsys, "--array", "3", "--server-url", server.url, "--prompt", "What's this?")
        ended(cluster, told["merge_job_id"])
        assert server.asked == 12, logs(folder)
    result = folder / f"output/captions/{FOLDER}/{FOLDER}_custom.json"
    assert list(json.loads(result.read_text())) == [f"{number:04d}.png" for number in range(12)], logs(folder)
    assert len(list((folder / "home/logs").glob("*-caption-*_[123].log"))) == 3


def test_a_job_that_is_told_that_its_time_is_over_saves_what_it_has(cluster: Cluster, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_images(folder / "images", 400)
    with serving(lambda ask: answer("yes", pause=1.0)) as server:
        told = submitted(capsys, "--server-url", server.url, "--concurrency", "2", "--time", "00:10:00")
        wait_for(lambda: server.asked >= 4, "it works", PATIENCE_SECONDS)
        # What SLURM itself sends two minutes before the end: --signal=B:TERM@120.
        assert cluster.run(["scancel", "--batch", "--signal=TERM", told["job_id"]]).returncode == 0
        ended(cluster, told["job_id"])
    assert "Stopping: 2 requests are on their way" in logs(folder)
    assert "The same command goes on from here" in logs(folder)
    captions = json.loads((folder / f"output/captions/{FOLDER}/{FOLDER}_simple.json").read_text())
    assert len(captions) == server.asked < 400
