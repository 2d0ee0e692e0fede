from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

from qwen_fp8_ops.cli import run
from qwen_fp8_ops.client.batch.folder import Folder
from qwen_fp8_ops.client.batch.item import Item
from qwen_fp8_ops.client.batch.publish import write_lines, write_object, write_parquet
from qwen_fp8_ops.client.batch.records import Records
from qwen_fp8_ops.errors import OpsError
from tests.batch.quick_server import FOLDER, MODEL, Ask, QuickServer, Say, answer, by_content, error, serving
from tests.batch.scenery import CHECKOUT, Captioner, make_images
from tests.waiting import wait_for

KILLS = 4


@pytest.fixture
def server() -> Iterator[QuickServer]:
    with serving() as server:
        yield server


@pytest.fixture
def captioner(tmp_path: Path, server: QuickServer) -> Captioner:
    return Captioner(make_images(tmp_path / "my images", 12), tmp_path / "the output", server.url)


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = run(["caption", *words])
    out, err = capsys.readouterr()
    return code, out, err


def call(captioner: Captioner, *words: str) -> list[str]:
    return ["--dataset-path", str(captioner.images), "--output-dir", str(captioner.output), "--server-url", captioner.url, *words]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN_FP8_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


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


def test_folders_within_folders(captioner: Captioner, capsys: pytest.CaptureFixture[str]) -> None:
    make_images(captioner.images / "b" / "deep", 2, (30, 30))
    make_images(captioner.images / ".hidden", 2)
    shutil.copy(captioner.images / "0000.png", captioner.images / "no ending")
    (captioner.images / "loop").symlink_to(captioner.images)
    odd = os.fsdecode(b"caf\xe9.png")
    shutil.copy(captioner.images / "0000.png", captioner.images / odd)
    assert told(capsys, *call(captioner, "--recursive", "--limit", "100"))[0] == 0
    assert list(captioner.captions) == [*(f"{number:04d}.png" for number in range(12)), "caf\\xe9.png", "no ending", "b/deep/0000.png", "b/deep/0001.png"]
    found = [item.id for item in Folder(captioner.images, "", True, ("b/*", "0003*"))]
    assert found == ["0003.png", "b/deep/0000.png", "b/deep/0001.png"]


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


def test_a_folder_of_links_to_folders_says_why_it_is_empty(captioner: Captioner, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "train").symlink_to(captioner.images)
    code, _, err = told(capsys, *call(captioner), "--dataset-path", str(tmp_path / "links"), "--recursive")
    assert (code, "Links to folders are not followed." in err) == (2, True)


def test_the_end_of_a_job_that_is_over_ends_nothing(captioner: Captioner, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1700000000")
    assert told(capsys, *call(captioner))[0] == 0
    assert len(captioner.captions) == 12


def test_a_hint_to_the_subfolders(captioner: Captioner, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (captioner.images / "sub").mkdir()
    for path in captioner.images.glob("*.png"):
        path.rename(captioner.images / "sub" / path.name)
    assert "--recursive" in told(capsys, *call(captioner))[2]


def test_without_a_service_it_says_how_to_start_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = make_images(tmp_path / "images", 1)
    code, _, err = told(capsys, "--dataset-path", str(images), "--output-dir", str(tmp_path))
    assert code == 3
    assert "./start_service.sh" in err


def test_shares_come_together_as_one_run(captioner: Captioner, capsys: pytest.CaptureFixture[str], tmp_path: Path, server: QuickServer) -> None:
    assert told(capsys, *call(captioner))[0] == 0
    whole = captioner.file().read_bytes()
    (captioner.images / "zzz.png").write_bytes(b"broken")
    shared = Captioner(captioner.images, tmp_path / "shared", captioner.url)
    assert {told(capsys, *call(shared, "--shard", f"{number}/2"))[0] for number in (1, 2)} == {0, 1}  # one of them had the broken one
    first = json.loads(shared.file("_simple.shard-1-of-2.json").read_text())
    second = json.loads(shared.file("_simple.shard-2-of-2.json").read_text())
    assert not set(first) & set(second)
    assert len(first) + len(second) == 12
    asked = server.asked
    code, _, err = told(capsys, "--dataset-path", str(shared.images), "--output-dir", str(shared.output), "--model-name", FOLDER, "--merge")
    assert code == 1  # for the broken one
    assert "12 captions (simple) of 13" in err
    assert shared.file().read_bytes() == whole
    assert server.asked == asked
    # The whole goes on from there, and a share that is missing is told.
    shared.file("_simple.shard-1-of-2.journal.jsonl").unlink()
    shared.file("_simple.journal.jsonl").unlink()
    words = ["--dataset-path", str(shared.images), "--output-dir", str(shared.output), "--model-name", FOLDER, "--merge"]
    code, _, err = told(capsys, *words)
    assert code == 1  # half a data set is not done
    assert "Share 1/2 has left nothing here." in err
    assert f"{len(first)} not done yet" in err or f"{len(first) + 1} not done yet" in err
    assert "The same command without --merge goes on from here." in err
    told(capsys, *call(shared))
    assert shared.file().read_bytes() == whole
    assert told(capsys, *words, "--name", "other")[0] == 1


def test_shares_that_were_done_anew_replace_what_was_put_together_before(captioner: Captioner, capsys: pytest.CaptureFixture[str], server: QuickServer) -> None:
    assert told(capsys, *call(captioner, "--max-tokens", "9"))[0] == 0
    server.script = lambda ask: answer("Once more.")
    for number in (1, 2):
        assert told(capsys, *call(captioner, "--shard", f"{number}/2", "--overwrite"))[0] == 0
    code, _, err = told(capsys, *call(captioner, "--merge"))
    assert (code, "max_tokens: 9 -> 256" in err) == (2, True)
    assert told(capsys, *call(captioner, "--merge", "--overwrite"))[0] == 0
    assert [*captioner.captions.values()] == ["Once more."] * 12


def test_killed_at_any_moment_it_ends_as_if_undisturbed(tmp_path: Path) -> None:
    """No item is lost, none is written twice, and what was kept is not asked again."""
    random = Random("kill")
    images = make_images(tmp_path / "images", 40)
    with serving(lambda ask: answer(f"a {len(ask.body)} {hash(ask.picture) % 1000}", pause=0.05)) as server:
        undisturbed = Captioner(images, tmp_path / "undisturbed", server.url)
        assert undisturbed.run("--concurrency", "3").returncode == 0
        asked = server.asked
        assert asked == 40
        killed = Captioner(images, tmp_path / "killed", server.url)
        journal = killed.file("_simple.journal.jsonl")
        for kill in range(KILLS):
            process = killed.spawn("--concurrency", "3")
            until = (kill + 1) * 7 + random.randrange(7)
            wait_for(lambda until=until: journal.exists() and journal.read_bytes().count(b"\n") > until, "some are done", 120)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
        with Records(journal) as records:
            kept = len(records)
        left = killed.run("--concurrency", "3")
        assert left.returncode == 0, left.stderr
        assert f"{kept} done before" in left.stderr
        assert killed.file().read_bytes() == undisturbed.file().read_bytes()
        ids = [json.loads(line)["id"] for line in journal.read_text().splitlines()[1:]]
        assert sorted(ids) == sorted(path.name for path in images.iterdir())
        assert server.asked - asked <= 40 + 3 * KILLS  # what was on its way


def test_ctrl_c_finishes_what_is_on_its_way_and_saves(tmp_path: Path) -> None:
    with serving(lambda ask: answer("yes", pause=0.3)) as server:
        captioner = Captioner(make_images(tmp_path / "images", 200), tmp_path / "output", server.url)
        process = captioner.spawn("--concurrency", "4", "--overwrite")
        wait_for(lambda: server.asked > 8 and server.at_once == 4, "it works", 120)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert "4 requests are on their way and are waited for" in err
        assert "The same command without --overwrite goes on from here" in err  # with it, all of this would be lost
        assert len(captioner.captions) == server.asked
    with serving(lambda ask: Say(hang=True)) as server:
        captioner.url = server.url
        process = captioner.spawn("--concurrency", "4")
        wait_for(lambda: server.at_once == 4, "it waits for an answer", 120)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 130


def test_ctrl_c_that_ends_the_reader_first_is_still_heard(tmp_path: Path) -> None:
    """As in ``qwen-fp8 caption ... 2>&1 | tee log``: tee dies of the same Ctrl+C."""
    with serving(lambda ask: answer("yes", pause=0.3)) as server:
        captioner = Captioner(make_images(tmp_path / "images", 200), tmp_path / "output", server.url)
        process = captioner.spawn("--concurrency", "2")
        assert process.stderr and process.stdout
        wait_for(lambda: server.asked > 4, "it works", 120)
        process.stderr.close()
        process.stdout.close()
        process.send_signal(signal.SIGINT)
        process.wait(60)
        assert server.asked < 150
        assert len(captioner.captions) == server.asked


def test_with_closed_streams_it_works_and_writes_into_no_file_of_ours(captioner: Captioner) -> None:
    command = [sys.executable, "-m", "qwen_fp8_ops", "caption", *call(captioner)]
    done = subprocess.run(["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", *command], cwd=CHECKOUT, timeout=120)
    assert done.returncode == 0
    assert len(captioner.captions) == 12
    assert len(captioner.file("_simple.journal.jsonl").read_text().splitlines()) == 13


def test_names_that_are_no_text_and_names_that_are_long(captioner: Captioner, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    odd = Captioner(captioner.images.rename(tmp_path / os.fsdecode(b"caf\xe9")), tmp_path / os.fsdecode(b"out \xe9"), captioner.url)
    odd.images.joinpath("0000.png").rename(odd.images / ("x" * 251 + ".png"))
    for words in ([], ["--json"]):
        code, out, _ = told(capsys, *call(odd, *words))
        assert (code, "out \\xe9" in out or "out \\\\xe9" in out) == (0, True)
        out.encode()
    assert len(odd.captions) == 12
    assert told(capsys, *call(odd, "--name", "長" * 120, "--shard", "1/1000"))[0] == 0


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


def test_the_items_of_a_folder_are_found_as_they_are_needed(tmp_path: Path) -> None:
    make_images(tmp_path / "a", 2)
    make_images(tmp_path / "b", 1)
    items = iter(Folder(tmp_path, "Look.", recursive=True))
    assert next(items) == Item("a/0000.png", "Look.", next(iter(Folder(tmp_path / "a", ""))).media)
    assert [next(items).id, next(items).id] == ["a/0001.png", "b/0000.png"]
    with pytest.raises(OpsError, match="cannot be read"):
        next(iter(Folder(tmp_path / "nowhere", "Look.")))


def test_a_link_to_nothing_and_a_subfolder_that_cannot_be_read_fail_alone(
    captioner: Captioner, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (captioner.images / "0000 link.png").symlink_to("nowhere.png")
    (captioner.images / "0000 loop.png").symlink_to("0000 loop.png")
    (captioner.images / "0001 link.png").symlink_to("0001.png")
    (captioner.images / "a link that is no picture").symlink_to("nowhere")
    for name in ("before", "lost+found", "z"):
        make_images(captioner.images / name, 1)
    scandir = os.scandir

    def refusing(path: str) -> Any:  # root, who may run this, is refused nothing
        if path.endswith("lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    code, _, err = told(capsys, *call(captioner, "--recursive"))
    assert code == 1
    assert "3 failed (" in err
    problems = [json.loads(line) for line in captioner.file("_simple.problems.jsonl").read_text().splitlines()]
    assert [problem["id"] for problem in problems] == ["0000 link.png", "0000 loop.png", "lost+found/"]
    assert [*captioner.captions][-3:] == ["0011.png", "before/0000.png", "z/0000.png"]
    assert "0001 link.png" in captioner.captions


def test_the_server_is_asked_for_the_model_it_has(captioner: Captioner, server: QuickServer, capsys: pytest.CaptureFixture[str]) -> None:
    models: list[str] = []

    def script(ask: Ask) -> Say:
        models.append(ask.json["model"])
        return by_content(ask)

    server.script = script
    assert told(capsys, *call(captioner, "--model-name", "mine"))[0] == 0
    assert set(models) == {MODEL}
    assert (captioner.output / "captions/mine/mine_simple.json").exists()
