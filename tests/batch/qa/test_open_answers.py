"""Answers to questions without choices: what is read, and what agrees with the truth."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.client.batch.qa.open_answers import agrees, extract_open, number


@pytest.mark.parametrize(
    ("output", "truth"),
    [
        ("3", "3"),
        ("three", "3"),
        ("There are 3 circles.", "3"),
        ("There are three circles", "\\boxed{3}"),
        ("\\boxed{3.14159}", "3.14"),
        ("The answer is 3.5 meters.", "3.5"),
        ("\\boxed{\\frac{1}{2}}", "0.5"),
        ("1/2", "\\frac{1}{2}"),
        ("\\boxed{0.333}", "1/3"),
        ("\\boxed{\\dfrac{3}{4}}", "$\\frac{3}{4}$"),
        ("1,234", "1234"),
        ("$1,234.50", "1234.5"),
        ("25%", "25"),
        ("5 cm", "5"),
        ("\\boxed{60^\\circ}", "60"),
        ("\\boxed{x=-3}", "-3"),
        ("Ｔｈｅ ａｎｓｗｅｒ ｉｓ １２", "12"),
        ("The answer is Paris.", "paris"),
        ("the Eiffel Tower", "Eiffel Tower"),
        ('{"answer": "Red"}', "red"),
        ("<think>4? Answer: 4</think>Answer: 5", "5"),
        ("First I thought the answer is 4.\n\nThe answer is 5.", "5"),
        ("答案是12。", "12"),
        ("Yes.", "yes"),
    ],
)
def test_what_agrees(output: str, truth: str) -> None:
    assert agrees(extract_open(output), truth)


@pytest.mark.parametrize(
    ("output", "truth"),
    [
        ("There are 3 circles and 2 squares", "3"),
        ("\\boxed{3.1}", "3.14"),
        ("2000", "1999"),
        ("3.4", "3"),
        ("The answer is not 3.", "3"),
        ("Maybe 3 circles", "3"),
        ("Is it 3?", "3"),
        ("I cannot see it: 3", "3"),
        ("<think>3", "3"),
        ("", "3"),
        ("A long text.\nWith 3 in it.", "3"),
        ("London", "Paris"),
        ("not red", "red"),
        ("red or blue", "red"),
        ("\\boxed{}", "3"),
        ("1e999", "3"),
    ],
)
def test_what_does_not(output: str, truth: str) -> None:
    assert not agrees(extract_open(output), truth)


def test_a_tolerance_is_relative_and_for_all_numbers() -> None:
    assert agrees(extract_open("101"), "100", 0.01)
    assert not agrees(extract_open("102"), "100", 0.01)
    assert not agrees(extract_open("Paris"), "100", 1.0)


@given(st.text(max_size=100), st.text(max_size=30))
def test_any_text_is_read_without_an_error(output: str, truth: str) -> None:
    found = extract_open(output)
    assert found.why
    assert found.text is None or not agrees(found, "a text that nobody gives 81.25")
    agrees(found, truth)


@given(st.one_of(st.integers(-(10**12), 10**12), st.floats(-1e9, 1e9).map(lambda value: round(value, 4))))
def test_a_number_is_read_as_it_was_written(value: float) -> None:
    for text in (f"{value}", f"{value:,}", f"\\boxed{{{value}}}"):
        read = number(text) if "boxed" not in text else number(extract_open(text).text or "")
        assert read is not None
        assert math.isclose(read.value, value, abs_tol=1e-12)
