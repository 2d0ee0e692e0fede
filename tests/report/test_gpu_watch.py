from __future__ import annotations

import threading
from typing import Any

import pytest

from qwen_fp8_ops.report import gpu_watch
from qwen_fp8_ops.report.console import Console
from qwen_fp8_ops.report.gpu_watch import GpuWatch, glance
from qwen_fp8_ops.report.screen import Screen
from qwen_fp8_ops.service.states import State
from tests.report.test_text import GIB, GPU
from tests.waiting import wait_for

LOADING = {"load": {"phase": "weights", "done": 3, "total": 24, "fraction": 0.125, "elapsed_seconds": 0, "eta_seconds": None}}


def gpus(*used: int | None) -> list[dict[str, Any]]:
    """Of 80 GiB each."""
    return [{**GPU, "index": index, "memory_used_bytes": None if one is None else one * GIB} for index, one in enumerate(used)]


@pytest.mark.parametrize(
    ("shown", "unicode", "text"),
    [
        (gpus(0, 40, 80, 79), True, "GPUs ▁▅██ 0.0 to 80.0 of 80.0 GiB"),
        (gpus(0, 40, 80, 7), False, "GPUs 0590 0.0 to 80.0 of 80.0 GiB"),
        (gpus(30, 30), False, "GPUs 33 30.0 of 80.0 GiB"),
        (gpus(30, None), False, "GPUs 3 30.0 of 80.0 GiB"),
        ([*gpus(30), {**GPU, "ours": False}], False, "GPUs 3 30.0 of 80.0 GiB"),
        (gpus(None), False, ""),
        ([], False, ""),
    ],
)
def test_a_glance_has_a_mark_for_each_gpu_of_ours(shown: list[dict[str, Any]], unicode: bool, text: str) -> None:
    assert glance(shown, Screen(unicode=unicode)) == text


class Driver:
    """What is looked at; ``hangs`` until it is let go."""

    def __init__(self, *shown: list[dict[str, Any]]) -> None:
        self.shown, self.looks, self.free = list(shown), 0, threading.Event()
        self.free.set()

    def look(self) -> dict[str, Any]:
        self.looks += 1
        assert self.free.wait(60)
        shown = self.shown.pop(0) if len(self.shown) > 1 else self.shown[0]
        return {"gpus": shown, "driver": None, "distribution": None}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_watch, "LOOK_SECONDS", 0.01)


def test_the_glance_follows_the_memory_and_ends_when_it_is_told() -> None:
    driver = Driver(gpus(10), gpus(20))
    watch = GpuWatch(driver.look, Screen(unicode=False))
    wait_for(lambda: watch.glance() == "GPUs 2 20.0 of 80.0 GiB", "the second look")
    watch.stop()
    wait_for(lambda: not any(thread.name == "gpu-watch" for thread in threading.enumerate()), "the thread to end")


def test_without_gpus_nothing_is_looked_at_again() -> None:
    driver = Driver([])
    watch = GpuWatch(driver.look, Screen())
    watch.glance()
    wait_for(lambda: not any(thread.name == "gpu-watch" for thread in threading.enumerate()), "the thread to end")
    assert (watch.glance(), driver.looks, watch.lines()) == ("", 1, [])


def test_a_driver_that_hangs_holds_up_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    driver = Driver(gpus(10))
    driver.free.clear()
    console = Console(gpus=GpuWatch(driver.look, Screen(unicode=False)))
    console.update(State.STARTING, LOADING)
    wait_for(lambda: driver.looks == 1, "the look")
    console.update(State.STARTING, LOADING)
    console.close()
    driver.free.set()
    assert capsys.readouterr().err == "loading weights 3/24\n"


def test_a_start_shows_the_gpus_while_it_loads_and_when_it_is_ready(capsys: pytest.CaptureFixture[str]) -> None:
    watch = GpuWatch(Driver(gpus(10, 10)).look, Screen(80, unicode=False))
    console = Console(gpus=watch)
    wait_for(lambda: bool(watch.glance()), "a look")
    console.update(State.STARTING, LOADING)
    console.ready({"url": "http://x", "model": "m", "media": {"url": "http://y", "root": "/z"}}, 1.0)
    first, second, *rest = capsys.readouterr().err.splitlines()
    assert first == "loading weights 3/24, GPUs 11 10.0 of 80.0 GiB"
    assert second == "2 x NVIDIA H100 80GB HBM3"
    assert rest[0].startswith("GPU 0  [")
    assert "READY after 1 s" in rest
