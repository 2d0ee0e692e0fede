"""Folders of small images, and the `caption` command as users call it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from qwen_fp8_ops.cli import run
from qwen_fp8_ops.client.async_api import Endpoint
from qwen_fp8_ops.client.batch.inputs import Listed
from qwen_fp8_ops.client.batch.item import Inputs, Item, Outcome, Recipe
from qwen_fp8_ops.client.batch.journal import Journal
from qwen_fp8_ops.client.batch.records import Records
from qwen_fp8_ops.client.batch.run import RunOptions, carry_out
from qwen_fp8_ops.client.batch.tally import Tally
from tests.batch.quick_server import FOLDER, MODEL

CHECKOUT = Path(__file__).parents[2]
RECIPE = Recipe("caption", MODEL, "Look.", sampling={"max_tokens": 9, "temperature": 0}, max_pixels=1 << 24)


def make_images(folder: Path, count: int, size: tuple[int, int] = (24, 16)) -> Path:
    """Each is another one."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", size, (number % 256, number // 256, 99)).save(folder / f"{number:04d}.png")
    return folder


def texts(count: int) -> Listed:
    """Items without images."""
    return Listed([Item(f"item {number}", f"question {number}") for number in range(count)])


def options(**changes: Any) -> RunOptions:
    return RunOptions(**{"concurrency": 4, "workers": 2, "patience_seconds": 60.0, **changes})


def run_batch(path: Path, url: str, inputs: Inputs, *, recipe: Recipe = RECIPE, key: str = "", **changes: Any) -> tuple[Tally, list[str]]:
    """The tally, and what was said."""
    tally, said = Tally(), []
    with Journal(path, recipe) as journal:
        carry_out(inputs, recipe, journal, lambda: Endpoint(url, key), options(**changes), tally, said.append)
    return tally, said


def outcomes(path: Path) -> dict[str, Outcome]:
    with Records(path) as records:
        return {outcome.id: outcome for outcome in records}


@dataclass
class Captioner:
    """`qwen-fp8 caption` of one folder, in a process of its own."""

    images: Path
    output: Path
    url: str

    @property
    def results(self) -> Path:
        return self.output / "captions" / FOLDER

    def file(self, ending: str = "_simple.json") -> Path:
        return self.results / f"{FOLDER}{ending}"

    @property
    def captions(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.file().read_text())
        return found

    def spawn(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "qwen_fp8_ops", "caption", "--dataset-path", str(self.images), "--output-dir", str(self.output)]
        command += ["--server-url", self.url, "--temperature", "0", *words]
        env = {**os.environ, "PYTHONPATH": str(CHECKOUT), "QWEN_FP8_HOME": str(self.output)}
        return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *words: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        process = self.spawn(*words)
        out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = run(["caption", *words])
    out, err = capsys.readouterr()
    return code, out, err


def call(captioner: Captioner, *words: str) -> list[str]:
    return ["--dataset-path", str(captioner.images), "--output-dir", str(captioner.output), "--server-url", captioner.url, *words]
