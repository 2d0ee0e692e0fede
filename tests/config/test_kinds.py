"""Text to value, and the words for what cannot be one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.config.kinds import Arguments, Choice, Decimal, Kind, Matching, Names, Place, Port, Switch, Text, Whole
from qwen_fp8_ops.config.settings import OPTIONS

HOSTS = Names("host names", r"\*|[A-Za-z0-9][A-Za-z0-9.-]*")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Whole(1, 65535), "8010", 8010),
        (Whole(1, 65535), "+8010", 8010),
        (Whole(1, 65535), "00001", 1),
        (Whole(1, 65535), "65535", 65535),
        (Whole(-5, 5), "-5", -5),
        (Port(), "8010", 8010),
        (Port(), "Auto", 0),
        (Decimal(0.1, 0.98), "0.90", 0.9),
        (Decimal(0.0, 2.0), ".5", 0.5),
        (Decimal(0.0, 2.0), "2.", 2.0),
        (Choice(("text", "json")), "JSON", "json"),
        (Switch(), "on", True),
        (Switch(), "Yes", True),
        (Switch(), "0", False),
        (Switch(), "off", False),
        (Text(), "", ""),
        (Text(), "Bücher und 책 #1", "Bücher und 책 #1"),
        (Place("a folder"), "/data/it's \"here\" = $5", "/data/it's \"here\" = $5"),
        (Matching("[a-z]*", "letters"), "", ""),
        (HOSTS, "", ()),
        (HOSTS, "a.example, b.example  c.example,a.example", ("a.example", "b.example", "c.example")),
        (HOSTS, "*", ("*",)),
        (Arguments(), "", ()),
        (Arguments(), "--a 'b c' --d=\"e f\"", ("--a", "b c", "--d=e f")),
        (Arguments(), "--a \\\n--b", ("--a", "\n--b")),
    ],
)
def test_good_text_becomes_its_value(kind: Kind, text: str, value: object) -> None:
    assert kind.parse(text) == value
    assert type(kind.parse(text)) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        (Whole(1, 65535), "abc", "not a whole number"),
        (Whole(1, 65535), "1.0", "not a whole number"),
        (Whole(1, 65535), "8_010", "not a whole number"),
        (Whole(1, 65535), "٣", "not a whole number"),
        (Whole(1, 65535), "1" * 5000, "not a whole number"),
        (Whole(1, 65535), "0", "out of range"),
        (Port(), "0", "out of range"),
        (Port(), "any", "not a whole number"),
        (Whole(1, 65535), "65536", "out of range"),
        (Decimal(0.1, 0.98), "nan", "not a number"),
        (Decimal(0.1, 0.98), "inf", "not a number"),
        (Decimal(0.1, 0.98), "1e-1", "not a number"),
        (Decimal(0.1, 0.98), "0,9", "not a number"),
        (Decimal(0.1, 0.98), "9" * 400, "out of range"),
        (Decimal(0.1, 0.98), "0.99", "out of range"),
        (Choice(("text", "json")), "xml", "unknown choice"),
        (Switch(), "maybe", "neither on nor off"),
        (Text(needed=True), "", "a value is needed"),
        (Text(), "a\nb", "control characters"),
        (Text(), "a\0b", "control characters"),
        (Text(), "a\x1b[31m", "control characters"),
        (Text(), "caf\udce9", "not UTF-8"),
        (Place("a folder"), "$HOME/models", "variables are not expanded"),
        (Place("a folder"), "/data/${USER}", "variables are not expanded"),
        (Place("a folder"), "$(pwd)/models", "variables are not expanded"),
        (Matching("[a-z]+", "letters"), "a\n", "not of the right form"),
        (HOSTS, "a.example,-b", "'-b' is not a name"),
        (Arguments(), "--a 'b", "quotes do not pair up"),
        (Arguments(), "--a \0", "control characters"),
    ],
)
def test_bad_text_is_refused_in_words(kind: Kind, text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        kind.parse(text)


@pytest.mark.parametrize("row", OPTIONS.values(), ids=lambda row: row.key)
@given(text=st.text(max_size=40))
def test_a_kind_only_ever_says_value_error(row: object, text: str) -> None:
    kind: Kind = row.kind  # type: ignore[attr-defined]
    reason = ""
    try:
        kind.parse(text)
    except ValueError as error:
        reason = str(error) or "nothing said"
    assert reason != "nothing said"


@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6), st.integers(-(10**7), 10**7))
def test_whole_numbers_are_taken_within_their_bounds_only(one: int, other: int, value: int) -> None:
    low, high = sorted((one, other))
    try:
        assert Whole(low, high).parse(str(value)) == value
        assert low <= value <= high
    except ValueError:
        assert not low <= value <= high


@given(st.decimals(0, 2, places=4, allow_nan=False))
def test_decimals_keep_their_value(value: object) -> None:
    assert math.isclose(Decimal(0.0, 2.0).parse(f"{value:f}"), float(str(value)))


def test_what_is_allowed_is_said_with_its_unit() -> None:
    assert Whole(10, 86_400, "seconds").allowed() == "a whole number from 10 to 86400 (seconds)"
    assert Decimal(0.1, 0.98).allowed() == "a number from 0.1 to 0.98"
    assert Choice(("a", "b")).allowed() == "a or b"
    assert Choice(("a", "b", "c")).allowed() == "one of a, b, c"
