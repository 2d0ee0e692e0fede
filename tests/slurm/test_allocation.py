"""The allocation we are in, with a squeue of our own."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.slurm.allocation import Allocation, current, salloc_line

INSIDE = {"SLURM_JOB_ID": "4711", "SLURM_JOB_PARTITION": "gpu", "SLURMD_NODENAME": "node07", "SLURM_GPUS_ON_NODE": "8"}

Squeue = Callable[[str], None]


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Squeue:
    """Puts a squeue into PATH that notes its arguments and does what it is told."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def make(does: str) -> None:
        (tmp_path / "squeue").write_text(f'#!/bin/sh\necho "$*" > {shlex.quote(str(tmp_path / "asked"))}\n{does}\n')
        (tmp_path / "squeue").chmod(0o755)

    return make


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """squeue speaks the cluster's local time."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin" if os.path.exists("/usr/share/zoneinfo/Europe/Berlin") else "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        yield
    time.tzset()


def test_outside_there_is_none() -> None:
    assert current({}) is None
    assert current({"SLURM_JOB_ID": ""}) is None


def test_inside_the_end_is_asked_for_and_told_in_utc(squeue: Squeue, berlin: None, tmp_path: Path) -> None:
    squeue("echo 2031-07-01T12:00:00")
    assert current(INSIDE) == Allocation("4711", "gpu", "node07", 8, "2031-07-01T10:00:00.000Z")
    assert (tmp_path / "asked").read_text().split() == ["--noheader", "--jobs=4711", "--format=%e"]


@pytest.mark.parametrize(
    "does", ["echo N/A", "echo NONE", "exit 0", "echo 'error: Invalid job id' >&2; exit 1", "echo 2031-07-01T12:00:00; exit 1", r"printf '\377\n'", "echo 0001-01-01T00:00:00"]
)
def test_an_end_that_nobody_tells_is_none(squeue: Squeue, does: str) -> None:
    squeue(does)
    found = current(INSIDE)
    assert found
    assert (found.job_id, found.ends_at) == ("4711", None)


def test_without_squeue_the_rest_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert current({"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "node[07-08]"}) == Allocation("1", None, "node[07-08]", None, None)


@pytest.mark.parametrize(("text", "gpus"), [("8", 8), ("0", 0), ("", None), ("h100:8", None), ("²", None)])
def test_a_number_of_gpus_is_a_number(monkeypatch: pytest.MonkeyPatch, text: str, gpus: int | None) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = current({**INSIDE, "SLURM_GPUS_ON_NODE": text})
    assert found
    assert found.gpus == gpus


def test_the_line_that_asks_for_an_allocation() -> None:
    settings = load(overrides=["SLURM_PARTITION=gpu-h100", "GPU_COUNT=4", "TENSOR_PARALLEL_SIZE=4", "SLURM_TIME=2-00:00", "SLURM_JOB_NAME=mine"]).settings
    assert salloc_line(settings) == "salloc -p gpu-h100 --job-name=mine --gres=gpu:4 --mem=320G --cpus-per-task=32 --time=2-00:00"
    assert salloc_line(load().settings) == "salloc --job-name=qwen-vl-fp8 --gres=gpu:8 --mem=320G --cpus-per-task=32 --time=24:00:00"
