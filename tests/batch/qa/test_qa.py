"""``qwen-fp8 qa`` as a person calls it, against a server that answers as the test says."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.cli import run
from tests.batch.qa.exam import answering, chats, images, picture, question, right_letter, write_lines, write_parquet
from tests.client.stub_server import StubServer

FIELDS = [
    "qid",
    "question",
    "choices",
    "gt_answer",
    "gt_letter",
    "predicted_letter",
    "model_output",
    "is_correct",
    "category",
    "source",
    "image_paths",
    "num_images",
]
METRICS = ["model", "total_questions", "correct_answers", "overall_accuracy", "category_metrics", "question_path", "dataset_path", "server_url"]
NAME = "Qwen3-VL-4B-Instruct"


class Exam:
    """One folder; ``ask`` runs the verb there, ``result`` and ``metrics`` are what it wrote."""

    def __init__(self, folder: Path) -> None:
        self.data = images(folder / "data")
        self.file = folder / "questions.parquet"
        self.out = folder / "out"

    def write(self, rows: list[dict[str, Any]]) -> None:
        write_parquet(self.file, rows)

    def ask(self, server: StubServer | None, *words: str, file: Path | None = None) -> int:
        url = ["--server-url", server.url if server else "http://127.0.0.1:9"]
        common = ["--question-path", str(file or self.file), "--dataset-path", str(self.data), "--output-dir", str(self.out), "--model-name", NAME]
        return run(["qa", *common, *url, *words])

    def path(self, ending: str) -> Path:
        return self.out / "qa" / NAME / f"{NAME}_qa{ending}"

    @property
    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path("_results.json").read_text())
        return found

    @property
    def metrics(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path("_metrics.json").read_text())
        return found


@pytest.fixture
def exam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Exam:
    monkeypatch.setenv("QWEN_FP8_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    made = Exam(tmp_path)
    made.write([question(number) for number in range(8)])
    return made


def perfect(text: str, _: Any) -> str:
    return f"Answer: {right_letter(text)}"


def not_all(text: str, _: Any) -> str:
    """Right, wrong, unreadable and cut-off thinking in turn."""
    number = picture(text)
    letter = right_letter(text)
    return [f"\\boxed{{{letter}}}", "ABCD"[("ABCD".index(letter) + 1) % 4], "A or B", "<think>hm"][number % 4]


def test_the_results_have_the_fields_that_tools_expect_and_the_numbers_add_up(exam: Exam, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(not_all) as server:
        assert exam.ask(server) == 0
    out = capsys.readouterr().out
    record = exam.result["q001"]
    assert [*exam.result] == [f"q{number:03d}" for number in range(8)]
    assert [*record][:12] == FIELDS
    assert [record[name] for name in FIELDS] == [
        "q001",
        "What colour is picture 1?",
        ["red", "green", "blue", "white"],
        "\\boxed{B}",
        "B",
        "C",
        "C",
        False,
        "Kind 1",
        "Made",
        ["images/green.png"],
        1,
    ]
    assert record["reasoning"] == "I look at it."
    assert exam.result["q002"]["extraction"] == "several"
    assert exam.result["q002"]["predicted_letter"] is None

    metrics = exam.metrics
    assert [*metrics][:8] == METRICS
    assert (metrics["model"], metrics["total_questions"], metrics["correct_answers"], metrics["overall_accuracy"]) == (NAME, 8, 2, 0.25)
    assert metrics["server_url"] == server.url
    assert (metrics["question_path"], metrics["dataset_path"]) == (str(exam.file), str(exam.data))
    groups = [metrics, *metrics["category_metrics"].values(), *metrics["source_metrics"].values()]
    for group in groups:
        total, right = (group["total_questions"], group["correct_answers"]) if "model" in group else (group["total"], group["correct"])
        assert total == right + group["wrong"] + group["not_extracted"] + group["errors"]
    assert sum(group["total"] for group in metrics["category_metrics"].values()) == 8
    assert metrics["tokens"] == {"prompt": 56, "completion": 40}
    assert metrics["complete"] is True
    assert "accuracy 25.0 %: 2 of 8 right" in out
    assert str(exam.path("_results.json")) in out


def test_images_go_before_the_text_which_is_asked_as_it_stands(exam: Exam) -> None:
    rows = [
        question(0),
        question(1, question="What is it?\n(A) x (B) y", answer="A", image=["images/red.png", "images/blue.png"]),
        question(2, question="How many?", answer="3"),
    ]
    exam.write(rows)
    with answering(lambda text, body: "\\boxed{A}") as server:
        exam.ask(server, "--concurrency", "1")
    contents = [body["messages"][0]["content"] for body in chats(server)]
    contents.sort(key=lambda content: ["What colour", "What is", "How many?"].index(" ".join(content[-1]["text"].split()[:2])))  # who is ready first is asked first
    texts = [content[-1]["text"] for content in contents]
    assert texts[0] == "What colour is picture 0?\nA. red\nB. green\nC. blue\nD. white\nAnswer with the option letter only."
    assert texts[1] == "What is it?\n(A) x (B) y\nAnswer with the option letter in \\boxed{}."
    assert texts[2] == "How many?\nGive the final answer in \\boxed{}."
    assert [len(content) for content in contents] == [2, 3, 2]
    assert all(part["image_url"]["url"].startswith("data:image/png;base64,") for content in contents for part in content[:-1])
    assert exam.result["q001"]["num_images"] == 2


def test_bad_rows_are_told_before_anything_is_asked(exam: Exam, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        question(0),
        question(1, qid="q000"),
        question(2, image=["images/none.png"]),
        question(3, answer="\\boxed{F}"),
        question(4, image=["../../etc/passwd"]),
        question(5, qid=None),
    ]
    exam.write(rows)
    with answering(perfect) as server:
        assert exam.ask(server) == 2
        err = capsys.readouterr().err
        assert server.requests == []
        for number, why in (
            (2, "qid q000 is that of row 1"),
            (3, "none.png is missing"),
            (4, "none of the choices A to D"),
            (5, "outside the data set"),
            (6, "qid is missing"),
        ):
            assert re.search(rf"row {number}\b.*{why}", err), (number, err)
        assert exam.ask(server, "--skip-bad") == 0
    assert "5 rows left out" in capsys.readouterr().out
    assert [*exam.result] == ["q000"]
    assert [row["row"] for row in exam.metrics["skipped_rows"]] == [2, 3, 4, 5, 6]


def test_a_second_run_asks_only_what_is_new_or_changed(exam: Exam) -> None:
    with answering(perfect) as server:
        exam.ask(server)
        before = exam.path("_results.json").read_text()
        assert len(chats(server)) == 8
        exam.ask(server)
        assert len(chats(server)) == 8
        assert exam.path("_results.json").read_text() == before
        rows = [question(number) for number in range(9)]
        rows[3]["question"] += " Please."
        exam.write(rows)
        assert exam.ask(server) == 0
        assert len(chats(server)) == 10
        assert exam.metrics["total_questions"] == 9


def test_a_true_answer_that_is_corrected_is_judged_anew_without_asking(exam: Exam) -> None:
    with answering(perfect) as server:
        exam.ask(server)
        assert exam.metrics["correct_answers"] == 8
        exam.write([question(number, **({"answer": "A"} if number == 1 else {})) for number in range(8)])
        exam.ask(server)
        assert len(chats(server)) == 8
    assert exam.metrics["correct_answers"] == 7


def test_another_way_of_asking_does_not_mix_with_what_is_there(exam: Exam, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(perfect) as server:
        exam.ask(server)
        capsys.readouterr()
        assert exam.ask(server, "--repeat", "2") == 2
        assert "repeat: 1 -> 2" in capsys.readouterr().err
        assert exam.ask(server, "--repeat", "2", "--overwrite") == 0
    assert exam.metrics["repeat"] == 2


def test_a_failure_counts_as_one_until_it_is_retried(exam: Exam, capsys: pytest.CaptureFixture[str]) -> None:
    broken = True
    with answering(lambda text, body: 400 if broken and "picture 5" in text else perfect(text, body)) as server:  # type: ignore[return-value, arg-type]
        assert exam.ask(server) == 1
        assert "--retry-failed" in capsys.readouterr().err
        record = exam.result["q005"]
        assert record["error"]["code"] == "bad-request"
        assert (record["is_correct"], record["predicted_letter"], record["model_output"]) == (False, None, "")
        assert (exam.metrics["errors"], exam.metrics["correct_answers"], exam.metrics["overall_accuracy"]) == (1, 7, 0.875)
        broken = False
        assert exam.ask(server, "--retry-failed") == 0
        assert len(chats(server)) == 9
    assert (exam.metrics["errors"], exam.metrics["overall_accuracy"]) == (0, 1.0)


def test_a_damaged_image_fails_alone(exam: Exam) -> None:
    whole = (exam.data / "images" / "red.png").read_bytes()
    (exam.data / "images" / "cut.png").write_bytes(whole[: len(whole) // 2])
    exam.write([question(0, image=["images/cut.png"]), question(1)])
    with answering(perfect) as server:
        assert exam.ask(server) == 1
        assert len(chats(server)) == 1
    assert exam.result["q000"]["error"]["code"] == "broken-image"
    assert exam.result["q001"]["is_correct"]
    assert "images/cut.png" in exam.path("_report.html").read_text()


def test_ctrl_c_finishes_what_is_on_its_way_and_says_what_is_missing(exam: Exam, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupting(text: str, body: Any) -> str:
        if len(chats(server)) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return perfect(text, body)

    with answering(interrupting) as server:
        assert exam.ask(server, "--concurrency", "1") == 130
        metrics = exam.metrics
        assert metrics["complete"] is False
        assert 3 <= metrics["total_questions"] < 8
        assert metrics["total_questions"] + metrics["not_asked"] == 8
        assert f"{metrics['not_asked']} not asked yet" in capsys.readouterr().out
        assert exam.ask(server) == 0
        assert len(chats(server)) == 8
    assert exam.metrics["complete"] is True


def test_the_majority_of_several_counts_and_a_tie_is_no_answer(exam: Exam) -> None:
    def wavering(text: str, body: Any) -> str:
        number, letter = picture(text), right_letter(text)
        other = "ABCD"[("ABCD".index(letter) + 1) % 4]
        time = body["seed"] - 10
        return {0: letter, 1: letter if time < 2 else other, 2: other if time < 2 else letter, 3: (letter, other, "I cannot tell")[time]}.get(number, letter)

    with answering(wavering) as server:
        assert exam.ask(server, "--repeat", "3", "--seed", "10", "--limit", "4") == 0
        assert len(chats(server)) == 12
    assert [(record["predicted_letter"], record["is_correct"], record["extraction"]) for record in exam.result.values()] == [
        ("A", True, "whole"),
        ("B", True, "whole"),
        ("D", False, "whole"),
        (None, False, "tie"),
    ]
    assert [one["seed"] for one in exam.result["q000"]["runs"]] == [10, 11, 12]
    assert exam.metrics["repeats"]["accuracy_each"] == [0.75, 0.5, 0.5]
    assert exam.metrics["repeats"]["all_agree"] == 0.25
    assert (exam.metrics["total_questions"], exam.metrics["not_asked"], exam.metrics["complete"]) == (4, 4, False)


def test_circular_wants_every_rotation_right(exam: Exam) -> None:
    exam.write([question(number) for number in range(4)] + [question(4, question="Picture 4?\nA. red\nB. all of the above", answer="A")])
    with answering(lambda text, body: "A" if "all of" in text or "picture 2" in text else perfect(text, body)) as server:
        assert exam.ask(server, "--circular") == 0
        assert len(chats(server)) == 17
    assert {qid: record["is_correct"] for qid, record in exam.result.items()} == {"q000": True, "q001": True, "q002": False, "q003": True, "q004": True}
    rotations = exam.result["q001"]["runs"]
    assert [one["gt_letter"] for one in rotations] == ["B", "C", "D", "A"]
    assert all(one["is_correct"] for one in rotations)
    texts = [body["messages"][0]["content"][-1]["text"] for body in chats(server)]
    assert any("A. white\nB. red\nC. green\nD. blue\nAnswer with the option letter only." in text for text in texts)
    assert exam.metrics["rotated_questions"] == 4


def test_shares_merged_are_one_run(exam: Exam) -> None:
    def timeless(value: Any) -> Any:
        return re.sub(r'"seconds": [0-9.]+', "", json.dumps(value))

    with answering(not_all) as server:
        for share in ("1/2", "2/2"):
            assert exam.ask(server, "--shard", share, "--circular") == 0
        parts = [json.loads(path.read_text()) for path in sorted(exam.out.rglob("*.shard-*_results.json"))]
        assert sum(map(len, parts)) == 8
        asked = len(chats(server))
        assert asked == 32
        assert exam.ask(server, "--merge", "--circular") == 0
        merged = exam.result
        assert exam.ask(server, "--merge") == 2
        assert len(chats(server)) == asked
        assert exam.ask(server, "--circular", "--overwrite") == 0
    assert timeless(merged) == timeless(exam.result)


def test_a_share_that_is_not_there_is_no_whole(exam: Exam, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(perfect) as server:
        assert exam.ask(server, "--shard", "1/2") == 0
    done = len(json.loads(exam.path(".shard-1-of-2_results.json").read_text()))
    assert 0 < done < 8
    assert exam.ask(None, "--merge") == 1
    assert f"{8 - done} not done yet. The same command without --merge goes on from here." in capsys.readouterr().err
    assert exam.metrics["complete"] is False


def test_paths_that_are_no_text_are_told_readably(exam: Exam, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exam.data = exam.data.rename(tmp_path / os.fsdecode(b"caf\xe9"))
    exam.file = exam.file.rename(tmp_path / os.fsdecode(b"\xe9.parquet"))
    exam.out = tmp_path / os.fsdecode(b"out \xe9")
    with answering(perfect) as server:
        assert exam.ask(server, "--format", "parquet") == 0
    assert "out \\xe9" in capsys.readouterr().out
    assert exam.path("_results.parquet").exists()
    assert exam.metrics["dataset_path"].endswith("caf\\xe9")
    assert exam.metrics["question_path"].endswith("\\xe9.parquet")


def test_open_questions_have_no_letters(exam: Exam) -> None:
    rows = [question(number, question=f"How many in picture {number}?", answer=answer) for number, answer in enumerate(("3", "\\boxed{2.50}", "Paris"))]
    exam.write(rows)
    said = ["There are 3 circles.", "The answer is 2.5 m.", "It might be London, or Rome."]
    with answering(lambda text, body: said[picture(text)]) as server:
        exam.ask(server)
    assert [(record["gt_letter"], record["predicted_letter"], record["choices"], record["is_correct"]) for record in exam.result.values()] == [
        (None, None, [], True),
        (None, None, [], True),
        (None, None, [], False),
    ]


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)></pre>\"'\x1b[31m\x07\u202e\x00 javascript:alert(3)\n\\boxed{D}"


def test_hostile_answers_steer_neither_the_page_nor_the_terminal(exam: Exam, capsys: pytest.CaptureFixture[str]) -> None:
    exam.write([question(0, qid="<b>q</b>\x1b[2J", category="</td><script>")])
    with answering(lambda text, body: HOSTILE) as server:
        assert exam.ask(server, "--show-errors") == 0
    printed = capsys.readouterr()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", printed.out + printed.err)
    assert "true A, said D" in printed.out
    page = exam.path("_report.html").read_text()
    assert not re.search(r"<script|<img src=x|onerror=alert\(2\)>|</pre>\"|[\x00-\x08\x0b-\x1f\u202e]", page)
    assert "&lt;script&gt;alert(1)" in page
    assert "default-src 'none'" in page
    assert re.findall(r'(?:src|href)=(?!"data:image/jpeg;base64,)', page.replace("&lt;img src=x", "")) == []
    assert "data:image/jpeg;base64," in page
    assert exam.result["<b>q</b>\x1b[2J"]["model_output"] == HOSTILE


def test_other_forms_of_questions_and_results(exam: Exam, tmp_path: Path) -> None:
    from pyarrow import parquet

    rows = [question(number) for number in range(3)]
    csv = tmp_path / "q.csv"
    csv.write_text(
        "qid,question,answer,image,choices\n"
        + "".join(f"q{n},Which colour is picture {n}?,{'ABCD'[n]},\"['images/red.png']\",\"['red', 'green', 'blue', 'white']\"\n" for n in range(3))
    )
    with answering(lambda text, body: right_letter(text)) as server:
        assert exam.ask(server, "--format", "jsonl", file=write_lines(tmp_path / "q.jsonl", rows)) == 0
        lines = [json.loads(line) for line in exam.path("_results.jsonl").read_text().splitlines()]
        assert [line["qid"] for line in lines] == ["q000", "q001", "q002"]
        assert exam.ask(server, "--format", "parquet", "--overwrite", file=csv) == 0
    table = parquet.read_table(exam.path("_results.parquet")).to_pylist()
    assert [(row["qid"], row["predicted_letter"], row["is_correct"]) for row in table] == [("q0", "A", True), ("q1", "B", True), ("q2", "C", True)]
    assert json.loads(table[0]["choices"]) == ["red", "green", "blue", "white"]


def test_json_is_one_object_also_when_it_fails(exam: Exam, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(perfect) as server:
        assert exam.ask(server, "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["schema"], value["ok"], value["metrics"]["overall_accuracy"]) == (1, True, 1.0)
    assert value["result"] == str(exam.path("_results.json"))
    assert exam.ask(None, "--json", file=exam.data / "none.parquet") == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "no-such-file"


def test_without_pyarrow_parquet_is_refused_with_the_remedy_and_csv_works(
    exam: Exam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = tmp_path / "q.csv"
    csv.write_text("qid,question,answer,image\n1,What colour is picture 0?\tA. red B. blue,A,images/red.png\n")
    for name in ("pyarrow", "pyarrow.parquet", "numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    with answering(lambda text, body: "A") as server:
        assert exam.ask(server) == 1
        assert "pip install 'qwen-fp8-ops[batch]'" in capsys.readouterr().err
        assert exam.ask(server, file=csv) == 0
    assert exam.result["1"]["is_correct"]


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["qa", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--circular" in out
    assert "qwen-fp8 qa --question-path questions.parquet --dataset-path data\n" in out
