"""Whole folders captioned by the real engine, killed and resumed: as if nothing had happened."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import pytest

from qwen_fp8_ops.weights.demo.world.drawing import draw_scene
from qwen_fp8_ops.weights.demo.world.things import make_scene
from tests.live.scale import scaled
from tests.live.service import LiveService
from tests.waiting import wait_for

SCENES, KILLS = scaled(items=24, kills=3)
PATIENCE_SECONDS = 900 + 10 * SCENES

pytestmark = [pytest.mark.engine, pytest.mark.timeout(2 * PATIENCE_SECONDS)]

MODEL = "qwen3-vl-fp8"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("the scenes")
    for number in range(SCENES):
        draw_scene(make_scene(Random(f"captioned {number}"), number % 3 + 1, (128, 128))).save(folder / f"{number:03d}.png")
    (folder / "broken.png").write_bytes((folder / "000.png").read_bytes()[:200])
    return folder


class Captions:
    def __init__(self, live: LiveService, scenes: Path, output: Path) -> None:
        self.live = live
        self.words = ["caption", "--dataset-path", str(scenes), "--output-dir", str(output), "--prompt-style", "SHORT", "--temperature", "0", "--json"]
        self.folder = output / "captions" / MODEL

    def run(self, *words: str) -> tuple[int, Any]:
        done = self.live.run(*self.words, *words, timeout=PATIENCE_SECONDS)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)["runs"][0]

    def spawn(self) -> subprocess.Popen[str]:
        return self.live.spawn(*self.words)

    def journal(self, name: str = "short") -> list[Any]:
        path = self.folder / f"{MODEL}_{name}.journal.jsonl"
        lines = path.read_bytes().split(b"\n")[1:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def result(self) -> bytes:
        return (self.folder / f"{MODEL}_short.json").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(live: LiveService, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Captions:
    captions = Captions(live, scenes, tmp_path_factory.mktemp("undisturbed"))
    code, told = captions.run()
    assert code == 1, "one picture is broken"
    assert (told["total"], told["answered"], told["failed"], told["problems"]) == (SCENES + 1, SCENES, 1, {"broken-image": 1})
    return captions


def test_every_picture_has_its_own_caption(undisturbed: Captions) -> None:
    captions = json.loads(undisturbed.result())
    assert list(captions) == [f"{number:03d}.png" for number in range(SCENES)]
    assert all(caption.startswith("A") and caption.endswith(".") for caption in captions.values()), captions
    assert len(set(captions.values())) > SCENES / 3
    kept = {line["id"]: line for line in undisturbed.journal()}
    assert all(kept[id]["usage"][0] > 10 and kept[id]["finish_reason"] == "stop" for id in captions)


def test_killed_and_resumed_while_the_engine_dies_too_it_is_the_same(live: LiveService, scenes: Path, undisturbed: Captions, tmp_path: Path) -> None:
    captions = Captions(live, scenes, tmp_path)
    for least in sorted(Random("kill").sample(range(1, SCENES * 2 // 3), KILLS)):
        process = captions.spawn()
        wait_for(lambda least=least: len(captions.journal()) >= least, "some have their caption", PATIENCE_SECONDS)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    before = len(captions.journal())
    process = captions.spawn()
    wait_for(lambda: len(captions.journal()) > before, "it goes on", PATIENCE_SECONDS)
    os.kill(live.engine_core_pid(), signal.SIGKILL)  # the supervisor brings it back, and the run goes on by itself
    out, err = process.communicate(timeout=2 * PATIENCE_SECONDS)
    assert "waiting: " in err and "the service is ready" in err
    told = json.loads(out)["runs"][0]
    assert (process.returncode, told["kept"], told["done"], told["problems"]) == (1, before, SCENES + 1, {"broken-image": 1}), err
    assert captions.result() == undisturbed.result()
    ids = [line["id"] for line in captions.journal()]
    assert len(ids) == len(set(ids)) == SCENES + 1
    live.wait_state("ready")


def test_two_shares_are_one_run(live: LiveService, scenes: Path, undisturbed: Captions, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for number in range(8):
        shutil.copy(scenes / f"{number:03d}.png", few)
    captions = Captions(live, few, tmp_path / "output")
    done = [captions.run("--shard", f"{number}/2")[1]["answered"] for number in (1, 2)]
    assert sum(done) == 8
    code, told = captions.run("--merge")
    assert (code, told["done"]) == (0, 8)
    whole = json.loads(undisturbed.result())
    assert json.loads(captions.result()) == {name: whole[name] for name in list(whole)[:8]}
