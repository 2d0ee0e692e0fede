"""Question files: three forms, images in three forms, and what is wrong with a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.client.batch.qa.image_field import image_paths, within
from qwen_fp8_ops.client.batch.qa.questions import Sheet, make_questions
from qwen_fp8_ops.client.batch.qa.tables import RowError, read_rows
from qwen_fp8_ops.errors import ConfigError, OpsError
from tests.batch.qa.exam import images, question, write_lines, write_parquet


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ("a.png", ("a.png",)),
        (["a.png"], ("a.png",)),
        (["a.png", "b c.png"], ("a.png", "b c.png")),
        (("a.png",), ("a.png",)),
        (np.array(["a.png", "b.png"], dtype=object), ("a.png", "b.png")),
        (np.array("a.png", dtype=object), ("a.png",)),
        ('["a.png", "b.png"]', ("a.png", "b.png")),
        ("['a.png', 'b.png']", ("a.png", "b.png")),
        ("['a.png' 'b.png']", ("a.png", "b.png")),
        ("['a.png'\n 'b.png']", ("a.png", "b.png")),
        ("array(['a.png'], dtype=object)", ("a.png",)),
        ("[1] scan.png", ("[1] scan.png",)),
        ("[scan].png", ("[scan].png",)),
        ({"path": "a.png", "bytes": None}, ("a.png",)),
    ],
    ids=str,
)
def test_images_in_every_form(value: Any, paths: tuple[str, ...]) -> None:
    assert image_paths(value) == paths


@pytest.mark.parametrize(
    "value",
    [None, "", " ", [], "[]", np.array([]), float("nan"), 3, [3], [None], b"\x89PNG", {"bytes": b"x"}, "http://host/a.png", "data:image/png;base64,x", "a\0b"],
    ids=str,
)
def test_what_is_no_image(value: Any) -> None:
    with pytest.raises(RowError):
        image_paths(value)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("a.png", "/d/a.png"),
        ("x/../a.png", "/d/a.png"),
        ("/d/x/a.png", "/d/x/a.png"),
        ("../a.png", None),
        ("/etc/passwd", None),
        ("x/../../e", None),
        ("/dd/a.png", None),
        (".", None),
    ],
)
def test_a_path_stays_within_the_folder(path: str, place: str | None) -> None:
    assert within("/d", path) == place


@given(st.text(max_size=40))
def test_any_path_is_within_or_refused(path: str) -> None:
    place = within("/data/set", path)
    assert place is None or place.startswith("/data/set/")


def sheet(path: Path, data: Path) -> Sheet:
    return make_questions(read_rows(path), data)


def test_the_three_forms_say_the_same(tmp_path: Path) -> None:
    data = images(tmp_path / "data")
    rows = [question(number) for number in range(5)]
    as_list = tmp_path / "list.json"
    as_list.write_text(json.dumps([{**row, "image": row["image"].tolist()} for row in rows]))
    csv = tmp_path / "q.csv"
    header = "qid,question,answer,image,category,source\r\n"
    csv.write_text(
        "\ufeff" + header + "".join('{qid},"{question}",{answer},"{image}",{category},{source}\r\n'.format(**row) for row in rows),
        encoding="utf-8",
        newline="",
    )
    parquet = sheet(write_parquet(tmp_path / "q.parquet", rows), data)
    assert len(parquet.questions) == 5
    assert parquet.bad == ()
    assert sheet(write_lines(tmp_path / "q.jsonl", rows), data) == parquet
    assert sheet(as_list, data) == parquet
    assert sheet(csv, data) == parquet


def test_rows_are_counted_from_one_and_lines_as_an_editor_does(tmp_path: Path) -> None:
    data = images(tmp_path / "data")
    path = write_lines(tmp_path / "q.jsonl", [question(0)])
    path.write_text("\n" + path.read_text() + "\n{not json\n[1]\n" + json.dumps({"qid": "x"}) + "\n")
    found = sheet(path, data)
    assert [question.row for question in found.questions] == [2]
    assert [(row.number, row.qid) for row in found.bad] == [(4, None), (5, None), (6, "x")]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"question": ""}, "question is empty"),
        ({"question": "<image>"}, "question is empty"),
        ({"question": None}, "question is missing"),
        ({"answer": None}, "answer is missing"),
        ({"answer": "A, B"}, "more than one choice"),
        ({"answer": "\\boxed{F}"}, "none of the choices A to D"),
        ({"answer": True}, "answer is True"),
        ({"qid": " "}, "qid is empty"),
        ({"image": ["images/none.png"]}, "none.png is missing"),
        ({"image": ["images"]}, "not a file"),
        ({"image": ["/etc/passwd"]}, "outside"),
        ({"choices": ["red"]}, "there are 1 choices"),
        ({"choices": ["red", "green", "blue", "black"]}, "others in its text than"),
        ({"choices": ["x", "y"], "question": "Which?", "answer": "purple"}, "none of the choices A to B"),
        ({"choices": ["x", "y"], "question": "Which?", "answer": 1}, "none of the choices A to B"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_row(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    data = images(tmp_path / "data")
    found = sheet(write_lines(tmp_path / "q.jsonl", [question(0, **changes)]), data)
    assert found.questions == ()
    assert why in str(found.bad[0])
    assert str(found.bad[0]).startswith("row 1")


@pytest.mark.parametrize(
    ("changes", "letter", "told"),
    [
        ({}, "A", 4),
        ({"answer": "A"}, "A", 4),
        ({"answer": "A. red"}, "A", 4),
        ({"answer": "red"}, "A", 4),
        ({"answer": "\\boxed{\\text{(A)}}"}, "A", 4),
        ({"choices": ["red", "green", "blue", "white"]}, "A", 4),
        ({"choices": ["x", "y"], "question": "Which?", "answer": "y"}, "B", 2),
        ({"choices": ["7", "1"], "question": "Which?", "answer": 1}, "B", 2),
        ({"question": "Which one?", "answer": "\\boxed{C}"}, "C", 0),
        ({"question": "How many?", "answer": 3}, None, 0),
        ({"answer": "\\boxed{42}"}, None, 0),
        ({"qid": 7}, "A", 4),
    ],
    ids=str,
)
def test_the_true_letter(tmp_path: Path, changes: dict[str, Any], letter: str | None, told: int) -> None:
    data = images(tmp_path / "data")
    found = sheet(write_lines(tmp_path / "q.jsonl", [question(0, **changes)]), data)
    assert found.bad == ()
    assert (found.questions[0].letter, len(found.questions[0].told)) == (letter, told)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "damaged-file"),
        (b"PAR1 and no more", "damaged-file"),
        (b"[1, 2", "damaged-file"),
        (b"qid,question\n1,2\n", "no-such-column"),
        (b'{"qid": 1}\n', "no-such-column"),
        (b"qid,question,answer,image\n\xff\xfe,x,y,z\n", "damaged-file"),
        (b'qid,question,answer,image\n"1,x', "damaged-file"),
        (b"\x00\x01\x02", "no-such-column"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "q"
    path.write_bytes(content)
    with pytest.raises(OpsError) as caught:
        [*read_rows(path)]
    assert caught.value.code == code
    assert caught.value.fix


def test_a_parquet_file_without_a_column_and_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no column image; it has qid, question, answer, picture"):
        [*read_rows(write_parquet(tmp_path / "q.parquet", [{"qid": "1", "question": "x", "answer": "y", "picture": "z"}]))]
    with pytest.raises(ConfigError, match="There is no file"):
        [*read_rows(tmp_path / "none")]


def test_a_csv_row_with_too_many_or_too_few_fields(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("qid,question,answer,image\n1,x,y\n2,x,y,z,more\n")
    assert [row.fault for row in read_rows(path)] == ["it has fewer fields than the header", "it has more fields than the header"]
