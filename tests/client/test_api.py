from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_fp8_ops.client.answers import Delta, Gatherer, Reply, ToolCall, Usage, read_reply
from qwen_fp8_ops.client.api import Api
from qwen_fp8_ops.client.failures import ApiError, SilentError, UnavailableError
from qwen_fp8_ops.client.request import DEFAULT_LIMITS, Limits
from tests.client.stub_server import MODEL, USAGE, Handler, chunk, event, like_vllm, serving, silent, stream_of, whole, without_end
from tests.ports import free_port

HELLO = [{"role": "user", "content": "hello"}]
ROOT = "http://host/v1"


def pieces_of(api: Api, **sampling: Any) -> tuple[list[Delta], Reply]:
    *pieces, reply = api.stream(HELLO, **sampling)
    assert isinstance(reply, Reply)
    deltas = [piece for piece in pieces if isinstance(piece, Delta)]
    assert len(deltas) == len(pieces)
    return deltas, reply


def refused(script: Callable[[Handler], None], *, deaf: bool = False, limits: Limits = DEFAULT_LIMITS, text: str = "hello") -> tuple[ApiError, ApiError]:
    """What such a server is told as, asked for a whole answer and for a stream."""
    messages = [{"role": "user", "content": text}]
    errors = []
    with serving(script, deaf=deaf) as server, Api(server.url, limits=limits) as api:
        for ask in (lambda: api.chat(messages), lambda: list(api.stream(messages))):
            with pytest.raises(ApiError) as caught:
                ask()
            errors.append(caught.value)
    return errors[0], errors[1]


def test_models() -> None:
    with serving() as server, Api(server.url) as api:
        assert api.models() == (MODEL,)


def test_a_whole_answer() -> None:
    with serving() as server, Api(f"{server.url}/v1/", model=MODEL, key="sk-secret") as api:
        reply = api.chat(HELLO, max_tokens=5, temperature=None)
    assert reply == Reply("\n\nYou said: hello", "hmm", "stop", Usage(7, 5, 12), (), MODEL, "request-1")
    assert server.asked == {"messages": HELLO, "stream": False, "model": MODEL, "max_tokens": 5}
    assert server.requests[0].headers["authorization"] == "Bearer sk-secret"


def test_without_a_model_none_is_named() -> None:
    with serving() as server, Api(server.url) as api:
        assert api.chat(HELLO).model == MODEL
    assert "model" not in server.asked


def test_a_streamed_answer_ends_with_the_whole_of_it() -> None:
    with serving() as server, Api(server.url) as api:
        deltas, reply = pieces_of(api, seed=1)
        whole_reply = api.chat(HELLO)
    assert deltas[0] == Delta("reasoning", "hmm")
    assert "".join(delta.text for delta in deltas if delta.kind == "answer") == reply.answer
    assert reply == whole_reply
    assert server.requests[0].body["seed"] == 1


def test_thinking_under_its_older_name() -> None:
    def older(handler: Handler) -> None:
        if handler.request_body["stream"]:
            handler.begin_stream()
            for value in (chunk({"reasoning_content": "old"}), chunk({"content": "yes"}, "stop")):
                handler.send_chunk(event(value))
            handler.end_stream()
        else:
            handler.give_json({"choices": [{"message": {"content": "yes", "reasoning_content": "old"}, "finish_reason": "stop"}]})

    with serving(older) as server, Api(server.url) as api:
        deltas, reply = pieces_of(api)
        assert deltas == [Delta("reasoning", "old"), Delta("answer", "yes")]
        assert (reply.reasoning, api.chat(HELLO).reasoning) == ("old", "old")
        assert reply.usage is None


def test_tool_calls_come_in_parts() -> None:
    parts = [
        {"index": 0, "id": "a", "function": {"name": "look", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"x":'}},
        {"index": 1, "id": "b", "function": {"name": "go", "arguments": "{}"}},
        {"index": 0, "function": {"arguments": "1}"}},
    ]
    gatherer = Gatherer(ROOT, {})
    for part in parts:
        assert list(gatherer.feed(event(chunk({"tool_calls": [part]})))) == []
    list(gatherer.feed(event(chunk({}, "tool_calls"))))
    assert gatherer.reply().tool_calls == (ToolCall("a", "look", '{"x":1}'), ToolCall("b", "go", "{}"))


def test_tool_calls_of_a_whole_answer() -> None:
    body = whole("", "")
    body["choices"][0]["message"] |= {"content": None, "tool_calls": [{"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}]}
    reply = read_reply(json.dumps(body).encode(), {}, ROOT)
    assert (reply.answer, reply.tool_calls, reply.request_id) == ("", (ToolCall("a", "look", "{}"),), "chatcmpl-1")


@settings(max_examples=60)
@given(st.data(), st.text(max_size=12), st.text(max_size=12))
def test_where_the_network_cuts_makes_no_difference(data: st.DataObject, reasoning: str, answer: str) -> None:
    stream = b"".join(stream_of(reasoning, answer))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    edges = [0, *cuts, len(stream)]

    def gathered(chunks: list[bytes]) -> tuple[list[Delta], Reply]:
        gatherer = Gatherer(ROOT, {})
        deltas = [delta for part in chunks for delta in gatherer.feed(part)]
        return deltas, gatherer.reply()

    expected = gathered([stream])
    assert gathered([stream[begin:end] for begin, end in itertools.pairwise(edges)]) == expected
    assert expected[1].answer == answer
    assert expected[1].usage == Usage(**USAGE)


def test_leaving_a_stream_closes_the_connection() -> None:
    with serving(without_end) as server, Api(server.url) as api:
        with contextlib.closing(api.stream(HELLO)) as pieces:
            assert next(pieces) == Delta("answer", "on ")
        assert server.gone.wait(30)


def test_nobody_listens() -> None:
    with Api(f"127.0.0.1:{free_port()}") as api, pytest.raises(UnavailableError) as caught:
        api.models()
    assert caught.value.code == "unreachable"
    assert "qwen-fp8 status" in caught.value.fix


def test_an_environments_proxy_is_not_asked_for_plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:9")
    with serving() as server, Api(server.url) as api:
        assert api.models() == (MODEL,)


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (400, "too long", "bad-request"),
        (401, "a key is needed", "unauthorized"),
        (429, "slower", "too-many-requests"),
        (500, "dead", "server-error"),
        (503, "stopping", "unavailable"),
    ],
)
def test_refusals(status: int, message: str, code: str) -> None:
    for error in refused(lambda handler: handler.give_error(status, message, Retry_After="7")):
        assert (error.code, error.status, error.retry_after_seconds) == (code, status, 7)
        assert message in error.message


def test_unknown_model_and_unknown_address() -> None:
    with serving() as server:
        with Api(server.url, model="other") as api, pytest.raises(ApiError, match="`other` does not exist") as caught:
            api.chat(HELLO)
        assert caught.value.code == "no-such-model"
        with Api(f"{server.url}/elsewhere") as api, pytest.raises(ApiError) as caught:
            api.chat(HELLO)
        assert caught.value.code == "no-such-route"


def test_a_body_that_is_refused_before_it_was_read() -> None:
    def too_large(handler: Handler) -> None:
        handler.give_error(413, "larger than 10 bytes", Connection="close")
        handler.cut()
        with contextlib.suppress(OSError):
            while handler.connection.recv(1 << 20):  # as a server that closes with care: what is still sent is thrown away
                pass

    for error in refused(too_large, deaf=True, text="x" * 5_000_000):
        assert error.code == "too-large"


def test_silence() -> None:
    for error in refused(silent, limits=Limits(read_seconds=0.1)):
        assert isinstance(error, SilentError)
        assert "silent for 0.1 s" in error.message


def test_silence_in_the_middle_of_a_stream() -> None:
    def stuck(handler: Handler) -> None:
        handler.begin_stream()
        handler.send_chunk(event(chunk({"content": "so far"})))
        silent(handler)

    with serving(stuck) as server, Api(server.url, limits=Limits(read_seconds=0.2)) as api:
        pieces = api.stream(HELLO)
        assert next(pieces) == Delta("answer", "so far")
        with pytest.raises(SilentError):
            next(pieces)
        assert server.gone.wait(30)


def test_a_connection_that_is_dropped_before_an_answer() -> None:
    for error in refused(lambda handler: handler.cut()):
        assert error.code == "broken-answer"


def test_a_stream_that_is_cut() -> None:
    def cut(handler: Handler) -> None:
        handler.begin_stream()
        handler.send_chunk(event(chunk({"content": "half"})))
        handler.cut()

    with serving(cut) as server, Api(server.url) as api:
        pieces = api.stream(HELLO)
        assert next(pieces) == Delta("answer", "half")
        with pytest.raises(ApiError, match="broke before the answer was complete") as caught:
            next(pieces)
    assert caught.value.code == "broken-answer"


@pytest.mark.parametrize("left_out", [1, 2, 3])
def test_a_stream_that_ends_politely_but_too_early(left_out: int) -> None:
    """Without [DONE] the finish_reason still says that the answer is whole; without both it is not."""

    def script(handler: Handler) -> None:
        handler.begin_stream()
        for data in stream_of("", "some words")[:-left_out]:
            handler.send_chunk(data)
        handler.end_stream()

    with serving(script) as server, Api(server.url) as api:
        if left_out < 3:
            assert pieces_of(api)[1].answer == "some words"
        else:
            with pytest.raises(ApiError) as caught:
                list(api.stream(HELLO))
            assert caught.value.code == "broken-answer"


@pytest.mark.parametrize(("status", "code"), [(400, "bad-request"), (500, "server-error"), (None, "server-error"), ("bad", "server-error")])
def test_a_failure_told_within_the_stream(status: object, code: str) -> None:
    def script(handler: Handler) -> None:
        handler.begin_stream()
        handler.send_chunk(event(chunk({"content": "a"})) + event({"error": {"message": "engine died", "code": status}}) + event(b"[DONE]"))
        handler.end_stream()

    with serving(script) as server, Api(server.url) as api, pytest.raises(ApiError, match="engine died") as caught:
        list(api.stream(HELLO))
    assert caught.value.code == code


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>hello</html>", b"null", b"[]", b'{"choices": 5}', b'{"choices": ["x"]}', b'{"choices": []}', b'{"choices": [{"message": 7}]}', b"\xff\xfe"],
)
def test_what_is_no_answer_of_the_protocol(body: bytes) -> None:
    for error in refused(lambda handler: handler.give(200, body, Content_Type="text/html")):
        assert error.code == "bad-answer"
        assert "curl" in error.fix


@pytest.mark.parametrize("data", [b"{", b"7", b'{"choices": {}}', b'{"choices": [1]}'])
def test_garbage_in_a_stream(data: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        list(Gatherer(ROOT, {}).feed(event(data)))
    assert caught.value.code == "bad-answer"


@pytest.mark.parametrize("choice", [{}, {"delta": None}, {"delta": {"content": None, "reasoning": 5, "tool_calls": ["x"]}}])
def test_pieces_without_text_are_passed_over(choice: dict[str, Any]) -> None:
    assert list(Gatherer(ROOT, {}).feed(event({"choices": [choice]}))) == []


def test_one_connection_serves_many_questions() -> None:
    ports: set[int] = set()

    def script(handler: Handler) -> None:
        ports.add(handler.client_address[1])
        like_vllm(handler)

    with serving(script) as server, Api(server.url) as api:
        for _ in range(3):
            pieces_of(api)
            api.chat(HELLO)
    assert len(ports) == 1
