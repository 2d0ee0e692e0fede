from __future__ import annotations

import json
import math

import pytest

from qwen_fp8_ops.client.request import api_root, chat_body, headers
from qwen_fp8_ops.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "root"),
    [
        ("http://127.0.0.1:8010", "http://127.0.0.1:8010/v1"),
        ("http://127.0.0.1:8010/", "http://127.0.0.1:8010/v1"),
        ("http://127.0.0.1:8010/v1", "http://127.0.0.1:8010/v1"),
        ("http://127.0.0.1:8010/v1//", "http://127.0.0.1:8010/v1"),
        ("localhost:8010", "http://localhost:8010/v1"),
        ("node7", "http://node7/v1"),
        ("http://[::1]:8010", "http://[::1]:8010/v1"),
        ("https://gateway.example.org/openai", "https://gateway.example.org/openai/v1"),
    ],
)
def test_one_form_of_address(given: str, root: str) -> None:
    assert api_root(given) == root
    assert api_root(root) == root


@pytest.mark.parametrize(
    "given", ["", "http://", "ftp://host", "http://host:99999", "http://host:x", "http://[::1", "http://a b", "http://h/?x=1", "http://h/#x", "http://h\n/"]
)
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(ConfigError) as caught:
        api_root(given)
    assert caught.value.code == "bad-url"


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        api_root("http://me:secret@host")
    assert "secret" not in caught.value.message + caught.value.fix


def test_key_goes_into_one_header() -> None:
    assert headers("sk-1")["Authorization"] == "Bearer sk-1"
    assert "Authorization" not in headers("")


@pytest.mark.parametrize("key", ["two words", "line\nend", "schlüssel-geheim"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        headers(key)
    assert key not in caught.value.message + caught.value.fix


def test_body_leaves_out_what_was_not_given() -> None:
    messages = [{"role": "user", "content": "hello"}]
    body = json.loads(chat_body(messages, model=None, stream=False, sampling={"max_tokens": None, "temperature": 0.0}))
    assert body == {"messages": messages, "stream": False, "temperature": 0.0}


def test_a_stream_asks_for_its_usage() -> None:
    body = json.loads(chat_body([], model="m", stream=True, sampling={}))
    assert body == {"messages": [], "stream": True, "model": "m", "stream_options": {"include_usage": True}}


def test_text_is_sent_as_utf8() -> None:
    assert "ä€😀".encode() in chat_body([{"role": "user", "content": "ä€😀"}], model=None, stream=False, sampling={})


@pytest.mark.parametrize(("text", "temperature"), [("\udcff", 0.5), ("fine", math.nan), ("fine", math.inf)])
def test_what_json_cannot_hold_is_refused(text: str, temperature: float) -> None:
    with pytest.raises(ConfigError) as caught:
        chat_body([{"role": "user", "content": text}], model=None, stream=False, sampling={"temperature": temperature})
    assert caught.value.code == "bad-request"
