"""Choices found in a question's text, or given beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.client.batch.qa.choices import Choices, find_choices, given_choices
from qwen_fp8_ops.client.batch.qa.tables import RowError

RGB = ("red", "green", "blue")


@pytest.mark.parametrize(
    "question",
    [
        "Which?\nA. red\nB. green\nC. blue",
        "Which?\nA) red\nB) green\nC) blue",
        "Which?\n(A) red\n(B) green\n(C) blue",
        "Which?\n[A] red\n[B] green\n[C] blue",
        "Which?\nA: red\nB: green\nC: blue",
        "Which?\nA、red\nB、green\nC、blue",
        "Which?\n（A）red\n（B）green\n（C）blue",
        "Which?\nＡ．red\nＢ．green\nＣ．blue",
        "Which?\n(a) red\n(b) green\n(c) blue",
        "Which?\na. red\nb. green\nc. blue",
        "Which?\n- A. red\n- B. green\n- C. blue",
        "Which?\n**A.** red\n**B.** green\n**C.** blue",
        "Which?\n  A.   red  \n\n  B.   green\n\n  C.   blue\n\nAnswer with the letter.",
        "Which? A. red B. green C. blue",
        "Which? (A) red; (B) green; (C) blue",
        "Which? (A) red (B) green (C) blue\nAnswer with the letter.",
        "Which?\nOptions: A. red B. green C. blue",
        "Which?\nOptions:\nA. red\nB. green\nC. blue\n",
        "Which?\nA. red    B. green\nC. blue",
        "Which?\r\nA. red\r\nB. green\r\nC. blue\r\n",
    ],
)
def test_the_usual_forms(question: str) -> None:
    found = find_choices(question)
    assert found is not None
    assert found.choices.texts == RGB
    assert found.stem == "Which?"


@pytest.mark.parametrize(
    "question",
    [
        "What is this?",
        "A. alone",
        "B. red\nC. green",
        "The ratio A:B:C is 1:2:3",
        "Which of A. and B. is higher?",
        "In the U.S.A. it is. B. was there",
        "A. \nB. x",
        "AB: CD:",
        "",
    ],
)
def test_what_is_no_row_of_choices(question: str) -> None:
    assert find_choices(question) is None


def test_more_than_four_two_and_ten() -> None:
    assert find_choices("Q\n" + "\n".join(f"{letter}. t{letter}" for letter in "ABCDEFGHIJ")).choices.letters == "ABCDEFGHIJ"  # type: ignore[union-attr]
    assert find_choices("Q (A) yes (B) no").choices.texts == ("yes", "no")  # type: ignore[union-attr]
    assert find_choices("哪个？A.红色B.蓝色C.绿色").choices.texts == ("红色", "蓝色", "绿色")  # type: ignore[union-attr]


def test_the_last_row_is_meant() -> None:
    found = find_choices("In the figure (A) is left and (B) is right. Which is it?\nA. x\nB. y\nC. z")
    assert found is not None
    assert found.choices.texts == ("x", "y", "z")


def test_choices_of_several_lines() -> None:
    found = find_choices("Q\nA. one\ntwo\nB. three\nfour\n\nAnswer with the letter.")
    assert found is not None
    assert found.choices.texts == ("one\ntwo", "three\nfour")
    assert found.tail == "Answer with the letter."


@given(
    st.lists(st.text(alphabet="xyz 0123,;(){}\\", min_size=1, max_size=9).map(lambda text: f"q{text}q"), min_size=2, max_size=26),
    st.sampled_from(["{}. ", "({}) ", "{}) ", "{}: "]),
)
def test_choices_written_one_a_line_are_found_again(texts: list[str], form: str) -> None:
    question = (
        "Which one?\n" + "\n".join(form.format(letter) + text for letter, text in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", texts, strict=False)) + "\nSay the letter."
    )
    found = find_choices(question)
    assert found is not None
    assert found.choices.texts == tuple(texts)
    assert (found.stem, found.tail) == ("Which one?", "Say the letter.")
    assert found.with_texts(texts) == question


@given(st.text(max_size=200))
def test_any_text_may_be_looked_at(text: str) -> None:
    found = find_choices(text)
    assert found is None or len(found.choices.texts) >= 2


@pytest.mark.parametrize(
    "value",
    [
        ["red", "green", "blue"],
        ("red", "green", "blue"),
        np.array(["red", "green", "blue"], dtype=object),
        {"A": "red", "B": "green", "C": "blue"},
        {"A": "red", "B": "green", "C": "blue", "D": None},
        {"label": ["A", "B", "C"], "text": np.array(["red", "green", "blue"], dtype=object)},
        '["red", "green", "blue"]',
        "['red', 'green', 'blue']",
        "A. red\nB. green\nC. blue",
        ["A. red", "B. green", "C. blue"],
    ],
    ids=str,
)
def test_a_column_of_choices(value: Any) -> None:
    assert given_choices(value) == Choices(RGB)


@pytest.mark.parametrize("value", [None, [], "", float("nan"), np.array([])], ids=str)
def test_no_choices_in_the_column(value: Any) -> None:
    assert given_choices(value) is None


@pytest.mark.parametrize("value", [["one"], ["x", ""], ["x", None], [str(n) for n in range(27)], "something", 7, {"A": "x", "C": "y"}], ids=str)
def test_a_column_that_is_wrong(value: Any) -> None:
    with pytest.raises(RowError):
        given_choices(value)


def test_rotations_come_round() -> None:
    choices = Choices(RGB)
    assert choices.rotated(1).texts == ("blue", "red", "green")
    assert choices.rotated(3) == choices.rotated(0) == choices


@pytest.mark.parametrize(
    ("texts", "may"),
    [
        (RGB, True),
        (("red", "all of the above"), False),
        (("A and B", "C only"), False),
        (("both of them", "x"), False),
        (("", ""), False),
        (("以上都对", "x"), False),
        (("Both cats", "A cat"), True),
    ],
)
def test_choices_that_speak_of_others_stay_where_they_are(texts: tuple[str, ...], may: bool) -> None:
    assert Choices(texts).may_rotate is may
