from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from qwen_fp8_ops.client.batch.publish import write_lines, write_object, write_parquet
from qwen_fp8_ops.errors import OpsError
from tests.batch.quick_server import MODEL, Ask, QuickServer, Say, answer, by_content, error, serving
from tests.batch.scenery import CHECKOUT, Captioner, call, make_images, told


def test_the_words_and_files_of_the_guide(captioner: Captioner, capsys: pytest.CaptureFixture[str]) -> None:
    name = "Qwen3-VL-4B-Instruct"
    words = ["--dataset-path", str(captioner.images), "--output-dir", str(captioner.output), "--server-url", captioner.url, "--prompt-style", "SIMPLE"]
    code, out, err = told(capsys, *words, "--model-name", name, "--max-tokens", "256", "--overwrite")
    result = captioner.output / "captions" / name / f"{name}_simple.json"
    assert (code, out.strip()) == (0, str(result))
    captions = json.loads(result.read_text())
    assert list(captions) == [f"{number:04d}.png" for number in range(12)]
    assert all(text.startswith("I see ") for text in captions.values())
    assert "12 captions (simple) of 12" in err
    assert not list(result.parent.glob("*problems*"))


def test_several_styles_and_forms(captioner: Captioner, capsys: pytest.CaptureFixture[str], server: QuickServer) -> None:
    prompts: dict[str, int] = {}

    def script(ask: Ask) -> Say:
        text = ask.json["messages"][0]["content"][1]["text"]
        prompts[text] = prompts.get(text, 0) + 1
        return answer(f"\n\n{text[:5]}", reasoning="let me see", finish="length" if ask.number == 5 else "stop")

    server.script = script
    code, out, _ = told(capsys, *call(captioner, "--prompt-style", "SHORT", "--prompt-style", "long", "--format", "jsonl", "--json"))
    assert code == 0
    assert prompts == {
        "Write a very short caption for the given image.": 12,
        "Write a very long and detailed caption describing the given image as comprehensively as possible.": 12,
    }
    value = json.loads(out)
    assert [one["name"] for one in value["runs"]] == ["short", "long"]
    assert [one["truncated"] for one in value["runs"]] == [1, 0]
    rows = [json.loads(line) for line in captioner.file("_short.jsonl").read_text().splitlines()]
    assert [row["image"] for row in rows] == [f"{number:04d}.png" for number in range(12)]
    assert rows[0] | {"seconds": 0, "truncated": False, "finish_reason": "stop"} == {
        "image": "0000.png",
        "caption": "Write",
        "reasoning": "let me see",
        "finish_reason": "stop",
        "truncated": False,
        "prompt_tokens": 7,
        "completion_tokens": 5,
        "seconds": 0,
        "tries": 1,
    }
    problems = [json.loads(line) for line in captioner.file("_short.problems.jsonl").read_text().splitlines()]
    assert [problem["problem"] for problem in problems] == ["truncated"]

    from pyarrow import parquet

    assert told(capsys, *call(captioner, "--prompt-style", "SHORT", "--format", "parquet"))[0] == 0
    assert parquet.read_table(captioner.file("_short.parquet")).to_pylist() == rows
    assert sum(prompts.values()) == 24  # another form asks nothing again


def test_an_odd_finish_reason_costs_no_table(captioner: Captioner, capsys: pytest.CaptureFixture[str], server: QuickServer) -> None:
    from pyarrow import parquet

    server.script = lambda ask: Say(body=b'{"choices": [{"message": {"content": "yes"}, "finish_reason": 7}]}')
    assert told(capsys, *call(captioner, "--format", "parquet"))[0] == 0
    assert parquet.read_table(captioner.file("_simple.parquet"))["caption"].to_pylist() == ["yes"] * 12


def test_own_prompts(captioner: Captioner, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("Wie heißt das?\n")
    assert told(capsys, *call(captioner, "--prompt-file", str(tmp_path / "prompt.txt"), "--limit", "2"))[0] == 0
    assert len(json.loads(captioner.file("_custom.json").read_text())) == 2
    assert told(capsys, *call(captioner, "--prompt", "What?", "--name", "what"))[0] == 0
    assert len(json.loads(captioner.file("_what.json").read_text())) == 12
    code, _, err = told(capsys, *call(captioner, "--prompt", "Another question?", "--name", "what"))
    assert code == 2
    assert "prompt: 'What?' -> 'Another question?'" in err


def test_failures_are_records_and_never_captions(captioner: Captioner, capsys: pytest.CaptureFixture[str], server: QuickServer) -> None:
    (captioner.images / "0003.png").write_bytes(b"no picture")
    (captioner.images / "notes.txt").write_text("no picture either, and not meant to be one")
    server.script = lambda ask: error(400, "it is too much") if ask.number == 4 else answer("") if ask.number == 5 else by_content(ask)
    code, out, _ = told(capsys, *call(captioner, "--json", "--concurrency", "1"))
    assert code == 1
    value = json.loads(out)["runs"][0]
    assert (value["total"], value["answered"], value["failed"], value["empty"]) == (12, 10, 2, 1)
    assert value["problems"] == {"wrong-media": 1, "bad-request": 1}
    assert len(captioner.captions) == 9
    problems = {row["id"]: row for row in map(json.loads, captioner.file("_simple.problems.jsonl").read_text().splitlines())}
    assert [row["problem"] for row in problems.values()].count("failed") == 2
    refused = next(row for row in problems.values() if row.get("code") == "bad-request")
    assert (refused["status"], refused["tries"], refused["message"]) == (400, 1, "it is too much")
    assert not set(captioner.captions) & set(problems)
    server.script = by_content
    code, _, err = told(capsys, *call(captioner))
    assert code == 1
    assert "9 captions (simple) of 12" in err
    assert "2 failed (" in err
    assert "--retry-failed asks for these again" in err
    code, _, err = told(capsys, *call(captioner, "--retry-failed"))
    assert (code, len(captioner.captions)) == (1, 10)
    assert "1 failed (1 wrong-media)" in err
    assert Path(captioner.file("_simple.summary.json")).exists()


def test_a_broken_image_that_was_taken_away_is_nobodys_problem_any_more(captioner: Captioner, capsys: pytest.CaptureFixture[str]) -> None:
    broken = captioner.images / "0003.png"
    broken.write_bytes(b"no picture")
    assert told(capsys, *call(captioner))[0] == 1
    assert captioner.file("_simple.problems.jsonl").exists()
    broken.unlink()
    code, _, err = told(capsys, *call(captioner))
    assert (code, "Which ones" in err, captioner.file("_simple.problems.jsonl").exists()) == (0, False, False)
    assert len(captioner.captions) == 11


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dataset-path", "nowhere"], "nowhere does not exist"),
        (["--prompt", "a", "--prompt-style", "SHORT"], "Give one of"),
        (["--prompt", " "], "The prompt is empty"),
        (["--prompt", os.fsdecode(b"caf\xe9")], "not UTF-8 text"),
        (["--shard", "5/4"], "from 1/4 to 4/4"),
        (["--merge", "--retry-failed"], "asks nothing"),
        (["--job", "1"], "both name a service"),
        (["--pattern", "*.gif"], "holds no images to caption"),
        (["--max-tokens", "0"], "allowed is"),
        (["--model", "nobody's"], 'has no model "nobody\'s"'),
        (["--key-file", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_work_is_said_at_once(captioner: Captioner, capsys: pytest.CaptureFixture[str], words: list[str], said: str, server: QuickServer) -> None:
    code, out, err = told(capsys, *call(captioner), *words)
    assert code in (1, 2)
    assert said in err
    assert not out
    assert "Traceback" not in err
    assert server.asked == 0


@pytest.mark.usefixtures("home")
def test_without_a_service_it_says_how_to_start_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = make_images(tmp_path / "images", 1)
    code, _, err = told(capsys, "--dataset-path", str(images), "--output-dir", str(tmp_path))
    assert code == 3
    assert "./start_service.sh" in err


def test_a_folder_that_takes_no_result_is_told_with_the_option_for_another(captioner: Captioner, capsys: pytest.CaptureFixture[str]) -> None:
    captioner.output.write_text("a file")
    code, _, err = told(capsys, *call(captioner), "--output-dir", str(captioner.output / "deep"))
    assert code == 1
    assert "Cannot write" in err
    assert "--output-dir" in err
    assert "QWEN_FP8_HOME" not in err


MEASURED = """
import resource, sys
from qwen_fp8_ops.cli import run
code = run(sys.argv[1:])
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_kib(captioner: Captioner) -> int:
    words = [sys.executable, "-c", MEASURED, "caption", "--dataset-path", str(captioner.images), "--output-dir", str(captioner.output)]
    words += ["--server-url", captioner.url, "--concurrency", "16"]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, timeout=300)
    code, peak = done.stdout.split()[-2:]
    assert code == "0", done.stderr
    return int(peak)


def test_memory_does_not_grow_with_the_inputs(tmp_path: Path) -> None:
    """Every image has 60 kB of noise: holding them, or their requests, would show."""
    noise = Image.frombytes("RGB", (160, 128), Random(1).randbytes(160 * 128 * 3))
    noise.save(tmp_path / "noise.png")
    peaks = []
    with serving(lambda ask: answer("x" * 2000)) as server:
        for count in (60, 700):
            folder = tmp_path / f"images {count}"
            folder.mkdir()
            for number in range(count):
                os.link(tmp_path / "noise.png", folder / f"{number:05d}.png")
            peaks.append(peak_kib(Captioner(folder, tmp_path / f"output {count}", server.url)))
            assert server.asked in (60, 760)
    assert peaks[1] - peaks[0] < 12 * 1024  # all of them are 43 MB as files and 57 MB as requests


def test_results_are_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "r.json"
    assert write_object(path, [("a", "half \ud83d"), ("b\n", {"c": "é"})]) == 2
    assert json.loads(path.read_text()) == {"a": "half ?", "b\n": {"c": "é"}}
    before = path.read_bytes()

    def broken() -> Iterator[tuple[str, str]]:
        yield "a", "new"
        raise OpsError("the journal is gone")

    with pytest.raises(OpsError):
        write_object(path, broken())
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["r.json"]
    assert write_object(path, []) == 0
    assert json.loads(path.read_text()) == {}
    assert write_lines(path, [{"a": 1}, {"b": "é"}]) == 2
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"a": 1}, {"b": "é"}]

    from pyarrow import parquet

    assert (
        write_parquet(path, ({"n": number, "text": None if number % 2 else "half \ud83d"} for number in range(2500)), {"n": "int64", "text": "string"}) == 2500
    )
    table = parquet.read_table(path)
    assert table.num_rows == 2500
    assert table["text"][0].as_py() == "half ?"


@pytest.mark.parametrize(("module", "words", "said"), [("PIL", [], "Pillow"), ("pyarrow", ["--format", "parquet"], "pyarrow")])
def test_a_missing_extra_is_named(captioner: Captioner, module: str, words: list[str], said: str) -> None:
    program = f"""
import sys, importlib.util
sys.modules[{module!r}] = None
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == {module!r} else find(name, *more)
from qwen_fp8_ops.cli import run
sys.exit(run(sys.argv[1:]))
"""
    done = subprocess.run([sys.executable, "-c", program, "caption", *call(captioner, *words)], cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert said in done.stderr
    assert "pip install 'qwen-fp8-ops[batch]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_server_is_asked_for_the_model_it_has(captioner: Captioner, server: QuickServer, capsys: pytest.CaptureFixture[str]) -> None:
    models: list[str] = []

    def script(ask: Ask) -> Say:
        models.append(ask.json["model"])
        return by_content(ask)

    server.script = script
    assert told(capsys, *call(captioner, "--model-name", "mine"))[0] == 0
    assert set(models) == {MODEL}
    assert (captioner.output / "captions/mine/mine_simple.json").exists()
