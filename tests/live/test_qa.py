"""Questions about drawn scenes, asked of the real engine: what is killed and goes on comes to the same as what was left alone."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from qwen_fp8_ops.weights.demo.world.drawing import draw_scene
from qwen_fp8_ops.weights.demo.world.questions import choice
from qwen_fp8_ops.weights.demo.world.things import make_scene
from tests.live.scale import scaled
from tests.live.service import START_SECONDS, LiveService
from tests.waiting import wait_for

QUESTIONS, KILLS = scaled(items=16, kills=3)
PATIENCE_SECONDS = START_SECONDS + 20 * QUESTIONS
SEED = 20_261_121
"""Scenes that the model has not seen: it is trained with other seeds."""

pytestmark = [pytest.mark.engine, pytest.mark.timeout(2 * PATIENCE_SECONDS)]


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """questions.parquet and its images: multiple choice questions, as data sets have them."""
    folder = tmp_path_factory.mktemp("exam")
    (folder / "images").mkdir()
    rows = []
    for number in range(QUESTIONS):
        chance = random.Random(SEED + number)
        scene = make_scene(chance)
        turn = choice(scene, chance)
        draw_scene(scene, chance).save(folder / "images" / f"{number:03d}.png")
        rows.append(
            {
                "qid": f"scene-{number:03d}",
                "question": f"<image>\n{turn.question}",
                "answer": f"\\boxed{{{turn.truth}}}",
                "image": [f"images/{number:03d}.png"],
                "category": f"{len(scene.things)} things",
                "source": "demo world",
            }
        )
    parquet.write_table(pa.Table.from_pylist(rows), folder / "questions.parquet")
    return folder


def words(exam: Path, out: Path) -> list[str]:
    # One after the other: which requests share a step of the engine may change the last digits of a sum, and so a word.
    return [
        "qa",
        "--question-path",
        str(exam / "questions.parquet"),
        "--dataset-path",
        str(exam),
        "--output-dir",
        str(out),
        "--temperature",
        "0",
        "--concurrency",
        "1",
    ]


def answered(out: Path) -> int:
    """Whole lines of the journal after its first."""
    return max(0, sum(path.read_bytes().count(b"\n") - 1 for path in out.rglob("*.journal.jsonl")))


def results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(next(out.rglob("*_qa_results.json")).read_text())
    return {qid: {name: value for name, value in record.items() if name != "seconds"} for qid, record in found.items()}


def test_a_run_that_is_killed_and_goes_on_comes_to_the_same(live: LiveService, exam: Path, tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    done = live.run(*words(exam, undisturbed), "--json", timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    metrics = value["metrics"]
    assert metrics["total_questions"] == QUESTIONS
    assert metrics["errors"] == 0
    assert metrics["total_questions"] == metrics["correct_answers"] + metrics["wrong"] + metrics["not_extracted"]
    assert metrics["not_extracted"] < QUESTIONS / 2, metrics["not_extracted_reasons"]  # the demo model was taught how to answer such questions

    chance = random.Random(7)
    stops = sorted(chance.sample(range(1, QUESTIONS - 2), KILLS))
    for stop in stops:
        running = live.spawn(*words(exam, killed))
        try:
            wait_for(lambda: answered(killed) >= stop or running.poll() is not None, f"{stop} answers", 600)  # noqa: B023
            running.send_signal(signal.SIGKILL)
        finally:
            running.communicate(timeout=60)
        assert running.returncode == -signal.SIGKILL, "it ended by itself"
        assert list(killed.rglob("*_qa_results.json")) == []  # nothing half done is ever published
    before = answered(killed)
    last = live.run(*words(exam, killed), "--json", timeout=PATIENCE_SECONDS)
    assert last.returncode == 0, last.stderr
    tally = json.loads(last.stdout)
    assert tally["kept"] == before >= stops[-1]
    assert tally["answered"] == QUESTIONS - before
    assert results(killed) == results(undisturbed)

    records = [json.loads(line) for path in killed.rglob("*.journal.jsonl") for line in path.read_text().splitlines()[1:]]
    assert len(records) == len({record["id"] for record in records}) == QUESTIONS  # none lost, none done twice


def test_several_at_once_with_every_rotation(live: LiveService, exam: Path, tmp_path: Path) -> None:
    rotated = [*words(exam, tmp_path)[:-2], "--circular", "--limit", "2", "--show-errors"]
    done = live.run(*rotated, "--json")
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)["metrics"]
    assert (metrics["total_questions"], metrics["requests"], metrics["not_asked"]) == (2, 8, QUESTIONS - 2)
    for record in results(tmp_path).values():
        assert len(record["runs"]) == 4
        assert record["is_correct"] == all(run["is_correct"] for run in record["runs"])
    page = next(tmp_path.rglob("*_report.html")).read_text()
    assert page.count("<article>") == 2 - metrics["correct_answers"]
    assert page.count('src="data:image/jpeg;base64,') == page.count("<article>")
