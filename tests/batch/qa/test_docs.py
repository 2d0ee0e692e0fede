"""The table of answers in docs/qa.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qwen_fp8_ops.client.batch.qa.choices import Choices
from qwen_fp8_ops.client.batch.qa.extraction import extract

PAGE = Path(__file__).parents[3] / "docs" / "qa.md"
CODE = re.compile("`([^`]+)`")


def forms() -> list[tuple[str, str | None, str | None]]:
    """Each form of the table with its letter and, where one is named, its kind."""
    table = PAGE.read_text(encoding="utf-8").partition("| the model says |")[2].partition("\n\n")[0]
    found: list[tuple[str, str | None, str | None]] = []
    for row in table.splitlines()[2:]:
        said, letter, kind = (cell.strip() for cell in row.strip("|").split(" | "))
        named = CODE.fullmatch(kind)
        found += [(form.replace("\\n", "\n"), None if letter == "none" else letter, named[1] if named else None) for form in CODE.findall(said)]
    return found


@pytest.mark.parametrize(("output", "letter", "kind"), forms())
def test_each_form_of_the_table(output: str, letter: str | None, kind: str | None) -> None:
    found = extract(output, Choices(("red", "blue", "green")))
    assert found.letter == letter
    assert kind is None or found.why == kind


def test_the_table_was_found() -> None:
    assert len(forms()) > 40
