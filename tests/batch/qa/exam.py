"""A small question file with its images, and a server that answers it as the test says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from tests.client.stub_server import MODEL, Handler, StubServer, last_text, serving, whole

Answer = Callable[[str, Any], str]
COLOURS = ("red", "green", "blue", "white")
CHOICES = "A. red\nB. green\nC. blue\nD. white"


def question(number: int, **changes: Any) -> dict[str, Any]:
    """The ``number``-th of an exam: what colour an image is; four of them have all four letters in turn."""
    colour = number % 4
    row = {
        "qid": f"q{number:03d}",
        "question": f"<image>\nWhat colour is picture {number}?\n{CHOICES}\nAnswer with the option letter only.",
        "answer": f"\\boxed{{{'ABCD'[colour]}}}",
        "image": np.array([f"images/{COLOURS[colour]}.png"], dtype=object),
        "category": f"Kind {number % 3}",
        "source": "Made",
    }
    return {**row, **changes}


def images(folder: Path) -> Path:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for colour in COLOURS:
        Image.new("RGB", (40, 30), colour).save(folder / "images" / f"{colour}.png")
    return folder


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    """As pandas writes it: a numpy array becomes a list column."""
    plain = [{name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in row.items()} for row in rows]
    parquet.write_table(pa.Table.from_pylist(plain), path)
    return path


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, default=lambda array: array.tolist()) + "\n" for row in rows), encoding="utf-8")
    return path


def picture(text: str) -> int:
    """The number of the picture that a question asks about."""
    return int(text.partition("picture ")[2].partition("?")[0])


def right_letter(text: str) -> str:
    """What a perfect student says to a question of ``question``, in whatever order its choices are."""
    return next(line[0] for line in text.splitlines() if line[1:] == f". {COLOURS[picture(text) % 4]}")


@contextmanager
def answering(answer: Answer) -> Iterator[StubServer]:
    """``answer`` gets the question's text and the whole body; what it gives is the model's output. A number is an HTTP status."""

    def script(handler: Handler) -> None:
        if handler.path == "/v1/models":
            handler.give_json({"object": "list", "data": [{"id": MODEL}]})
        elif handler.path != "/v1/chat/completions":
            handler.give_json({"detail": "Not Found"}, 404)
        else:
            said = answer(last_text(handler.request_body), handler.request_body)
            if isinstance(said, int):
                handler.give_error(said, "no")
            else:
                handler.give_json(whole("I look at it.", said))

    with serving(script) as server:
        yield server


def chats(server: StubServer) -> list[Mapping[str, Any]]:
    return [request.body for request in server.requests if request.method == "POST"]
