from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.client.sse import SseDecoder


def decode(*chunks: bytes) -> list[str]:
    decoder = SseDecoder()
    return [data for chunk in chunks for data in decoder.feed(chunk)]


def test_one_event() -> None:
    assert decode(b"data: one\n\n") == ["one"]


def test_all_line_ends() -> None:
    assert decode(b"data: a\r\n\r\ndata: b\r\rdata: c\n\n") == ["a", "b", "c"]


def test_comments_and_other_fields_are_no_data() -> None:
    assert decode(b": keep-alive\n\nevent: x\nid: 1\nretry: 5\ndata: a\n\n: ping\n") == ["a"]


def test_several_data_lines_are_one_event() -> None:
    assert decode(b"data: a\ndata:b\ndata\n\n") == ["a\nb\n"]


def test_only_one_space_after_the_colon_is_taken_off() -> None:
    assert decode(b"data:  two: colons\n\n") == [" two: colons"]


def test_byte_order_mark_is_skipped_at_the_start_only() -> None:
    assert decode(b"\xef\xbb\xbfdata: a\n\n") == ["a"]
    assert decode(b"data: a\n\n\xef\xbb\xbfdata: b\n\n") == ["a"]


def test_an_event_without_its_empty_line_is_not_given() -> None:
    assert decode(b'data: {"cho') == []
    assert decode(b"data: a\n") == []


def test_line_end_cut_in_two() -> None:
    assert decode(b"data: a\r", b"\n\r", b"\ndata: b\r", b"", b"\n\r", b"\n") == ["a", "b"]


def test_broken_utf8_does_not_end_the_stream() -> None:
    assert decode(b"data: \xff\n\ndata: b\n\n") == ["\ufffd", "b"]


lines = st.sampled_from([b"data: x", b"data:\xc3\xa4\xe2\x82\xac", b"data", b": note", b"", b"", b"event: y", b"junk", b"data: [DONE]"])
streams = st.lists(st.tuples(lines, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=12).map(lambda parts: b"".join(line + end for line, end in parts))


@given(streams, st.data())
def test_where_it_is_cut_makes_no_difference(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    edges = [0, *cuts, len(stream)]
    assert decode(*(stream[begin:end] for begin, end in itertools.pairwise(edges))) == decode(stream)
    assert decode(*(stream[place : place + 1] for place in range(len(stream)))) == decode(stream)
