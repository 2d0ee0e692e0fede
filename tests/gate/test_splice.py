from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.gate.splice import LONGEST_OPENING_BYTES, splice, undecided

MEMBER = b'"max_tokens":77'
NAMES = st.sampled_from(["max_tokens", "max_completion_tokens", "messages", '"max_tokens":', "\\"]) | st.text()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just('{"max_tokens":1}'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=5)
SPACES = st.text(" \t\r\n", max_size=5)


@given(OBJECTS, SPACES, SPACES, st.booleans(), st.booleans())
def test_the_object_stays_what_it_was_and_its_own_limit_wins(value: dict[str, Any], before: str, within: str, ascii_only: bool, marked: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    body = (before + "{" + within + text[1:]).encode("utf-8", "surrogatepass")
    body = b"\xef\xbb\xbf" + body if marked else body
    assert json.loads(splice(body, MEMBER)) == {"max_tokens": 77, **json.loads(body)}


@given(OBJECTS, SPACES, st.data())
def test_it_does_not_matter_where_the_network_cuts(value: dict[str, Any], before: str, data: st.DataObject) -> None:
    body = before.encode() + json.dumps(value).encode()
    cut = data.draw(st.integers(0, len(body)))
    head = body[:cut]
    while undecided(head) and cut < len(body):
        cut += 1
        head = body[:cut]
    assert json.loads(splice(head, MEMBER) + body[cut:]) == {"max_tokens": 77, **value}


@given(VALUES.filter(lambda value: not isinstance(value, dict)))
def test_what_is_not_an_object_is_left_alone(value: Any) -> None:
    body = json.dumps(value).encode()
    assert splice(body, MEMBER) == body


@given(st.binary())
def test_nothing_but_the_member_is_ever_added(body: bytes) -> None:
    spliced = splice(body, MEMBER)
    assert spliced == body or (spliced.count(MEMBER) == body.count(MEMBER) + 1 and spliced.replace(MEMBER, b"", 1).replace(b"{,", b"{", 1) == body)


@pytest.mark.parametrize("body", [b"", b"   ", b"{", b"{ ", b"{a", b"{1:2}", b"[{}]", b"nonsense{}", b"\x00{}", b"\x1f\x8b\x08"])
def test_broken_bodies_are_left_alone(body: bytes) -> None:
    assert splice(body, MEMBER) == body


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("value", [{}, {"messages": []}])
def test_other_encodings_of_json_are_left_alone(encoding: str, value: Any) -> None:
    body = json.dumps(value).encode(encoding)
    assert json.loads(body) == value
    assert splice(body, MEMBER) == body


@pytest.mark.parametrize("body", [b"{}", b" { } ", b"\n{\t}"])
def test_an_empty_object_stays_valid(body: bytes) -> None:
    assert json.loads(splice(body, MEMBER)) == {"max_tokens": 77}


@pytest.mark.parametrize("body", [b'{"max_tokens": 5}', b'{"max\\u005ftokens": 5}', b'{"a": {}, "max_tokens" : 5 }'])
def test_a_limit_of_the_requests_own_wins_however_it_is_written(body: bytes) -> None:
    assert json.loads(splice(body, MEMBER))["max_tokens"] == 5


@pytest.mark.parametrize("body", [b'{"tools": [{"parameters": {"max_tokens": 1}}]}', b'{"messages": ["max_tokens"]}'])
def test_a_mention_is_not_a_limit(body: bytes) -> None:
    assert json.loads(splice(body, MEMBER))["max_tokens"] == 77


def test_white_space_is_not_waited_out_for_ever() -> None:
    assert undecided(b"")
    assert undecided(b" \n{ ")
    assert not undecided(b'{"')
    assert not undecided(b"[")
    assert not undecided(b"{}")
    assert not undecided(b" " * LONGEST_OPENING_BYTES)
