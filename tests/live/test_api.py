"""What clients do with the real service: text, pictures, videos, streams; and what they may not do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live.service import LiveService
from tests.media_files import data_url, make_image, make_video

pytestmark = pytest.mark.engine

CLOSED = [
    "/invocations",
    "/tokenize",
    "/detokenize",
    "/docs",
    "/openapi.json",
    "/v1/embeddings",
    "/scale_elastic_ep",
    "/inference/v1/generate",
    "/version",
    "/load",
    "/ping",
    "/sleep",
]


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    message = answer.json()["choices"][0]["message"]
    return (message.get("reasoning") or "") + (message.get("content") or "")


def picture(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def film(url: str) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url}}


def question(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def test_models(live: LiveService) -> None:
    answer = httpx.get(f"{live.url}/v1/models")
    assert [model["id"] for model in answer.json()["data"]] == ["qwen3-vl-fp8"]


def test_text_with_model_and_without(live: LiveService) -> None:
    named = live.chat("Hello", model="qwen3-vl-fp8", temperature=0)
    unnamed = live.chat("Hello", temperature=0)
    assert text_of(named) == text_of(unnamed)
    assert unnamed.json()["model"] == "qwen3-vl-fp8"


def test_wrong_model_is_refused(live: LiveService) -> None:
    assert live.chat("Hello", model="gpt-4").status_code == 404


def test_several_turns_are_read(live: LiveService) -> None:
    turns = [{"role": "user", "content": "One."}, {"role": "assistant", "content": "Two."}, {"role": "user", "content": "Three."}]
    several = live.chat("", messages=turns)
    single = live.chat("Three.")
    assert text_of(several)
    assert several.json()["usage"]["prompt_tokens"] > single.json()["usage"]["prompt_tokens"]


def test_reasoning_is_split_from_the_answer(live: LiveService) -> None:
    message = live.chat("Hello", temperature=0).json()["choices"][0]["message"]
    assert message["reasoning"].strip() and message["content"].strip()
    assert "</think>" not in message["reasoning"] + message["content"]


def test_stream_says_what_the_whole_answer_says(live: LiveService) -> None:
    whole = text_of(live.chat("Tell me.", temperature=0))
    body = {"messages": [{"role": "user", "content": "Tell me."}], "max_tokens": 60, "temperature": 0, "stream": True}
    pieces = []
    with httpx.stream("POST", f"{live.url}/v1/chat/completions", json=body, timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                delta = json.loads(line[6:])["choices"][0]["delta"]
                pieces.append((delta.get("reasoning") or "") + (delta.get("content") or ""))
    assert len(pieces) > 5
    assert "".join(pieces) == whole


def test_completions(live: LiveService) -> None:
    answer = httpx.post(f"{live.url}/v1/completions", json={"prompt": "Once upon", "max_tokens": 8, "ignore_eos": True}, timeout=60)
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 8


def test_pictures_change_the_answer(live: LiveService, tmp_path: Path) -> None:
    red = make_image(tmp_path / "red.png", colour=(220, 30, 30))
    blue = make_image(tmp_path / "blue.jpg", colour=(30, 30, 220))
    about = {path: text_of(live.chat([picture(data_url(path)), question("What is it?")], temperature=0)) for path in (red, blue)}
    assert about[red] != about[blue]


def test_several_pictures(live: LiveService, tmp_path: Path) -> None:
    paths = [make_image(tmp_path / f"{number}.png", colour=(60 * number, 90, 30)) for number in range(3)]
    one = live.chat([picture(data_url(paths[0])), question("What?")])
    three = live.chat([*(picture(data_url(path)) for path in paths), question("What?")])
    assert text_of(three)
    assert three.json()["usage"]["prompt_tokens"] > one.json()["usage"]["prompt_tokens"]


def test_too_many_pictures_are_refused_by_name(live: LiveService, tmp_path: Path) -> None:
    path = make_image(tmp_path / "one.png")
    answer = live.chat([*(picture(data_url(path)) for _ in range(17)), question("What?")])
    assert answer.status_code == 400
    assert "16" in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_picture_from_the_media_server(live: LiveService, host: str) -> None:
    path = make_image(live.media_root / "a picture.png", colour=(10, 200, 10))
    by_url = live.chat([picture(f"http://{host}:{live.media_port}/a%20picture.png"), question("What?")], temperature=0)
    by_data = live.chat([picture(data_url(path)), question("What?")], temperature=0)
    assert text_of(by_url) == text_of(by_data)


def test_video_from_the_media_server(live: LiveService) -> None:
    (live.media_root / "videos").mkdir(exist_ok=True)
    path = make_video(live.media_root / "videos" / "sample_video.mp4")
    by_url = live.chat([film(f"{live.media_url}/videos/sample_video.mp4"), question("What happens?")], temperature=0)
    by_data = live.chat([film(data_url(path)), question("What happens?")], temperature=0)
    assert text_of(by_url) == text_of(by_data)


def test_picture_from_a_host_that_is_not_allowed(live: LiveService) -> None:
    answer = live.chat([picture("http://example.com/cat.png"), question("What?")])
    assert answer.status_code == 400
    assert "allowed" in answer.text


def test_missing_and_broken_pictures_are_the_clients_fault(live: LiveService) -> None:
    assert live.chat([picture(f"{live.media_url}/nothing-there.png")]).status_code in (400, 404, 422)
    assert live.chat([picture("data:image/png;base64,AAAA")]).status_code == 400
    assert text_of(live.chat("Still there?"))


def test_default_length_is_max_tokens_and_a_request_may_ask_for_more(live: LiveService) -> None:
    unasked = {"messages": [{"role": "user", "content": "Go on."}], "ignore_eos": True}
    default = httpx.post(f"{live.url}/v1/chat/completions", json=unasked, timeout=120).json()
    more = httpx.post(f"{live.url}/v1/chat/completions", json={**unasked, "max_tokens": 600}, timeout=120).json()
    assert default["usage"]["completion_tokens"] == 512
    assert more["usage"]["completion_tokens"] == 600


def test_openai_sdk(live: LiveService, tmp_path: Path) -> None:
    from openai import NotFoundError, OpenAI

    with OpenAI(base_url=f"{live.url}/v1", api_key="unused", max_retries=0) as client:
        content: Any = [question("What is it?"), picture(data_url(make_image(tmp_path / "x.png")))]
        answer = client.chat.completions.create(model="qwen3-vl-fp8", messages=[{"role": "user", "content": content}], max_tokens=60)
        assert answer.choices[0].message.content
        stream = client.chat.completions.create(model="qwen3-vl-fp8", messages=[{"role": "user", "content": "Hello"}], max_tokens=60, stream=True)
        assert sum(1 for _ in stream) > 5
        with pytest.raises(NotFoundError):
            client.embeddings.create(model="qwen3-vl-fp8", input="x")


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_not_promised_is_closed(live: LiveService, method: str, path: str) -> None:
    answer = httpx.request(method, f"{live.url}{path}", json={"prompt": "x"} if method == "POST" else None)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"]


def test_chat_verb_reads_a_local_picture(live: LiveService) -> None:
    path = make_image(live.media_root / "for chat.png")
    done = live.run("chat", "What is it?", "--image", str(path), "--json", "--max-tokens", "60")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["answer"].strip() and found["reasoning"].strip() and found["usage"]["completion_tokens"] > 5


def test_audit_has_a_line_for_each_request(live: LiveService) -> None:
    answer = live.chat("Count me.")
    request_id = answer.headers["x-request-id"]
    audit = live.home / "logs" / "audit.jsonl"

    def line() -> dict[str, Any] | None:
        lines = [json.loads(text) for text in audit.read_text().splitlines()] if audit.exists() else []
        return next((entry for entry in lines if entry["id"] == request_id), None)

    from tests.waiting import wait_for

    entry = wait_for(line, "the request is in the audit log")
    assert entry["status"] == 200
    assert entry["completion_tokens"] == answer.json()["usage"]["completion_tokens"]


def test_status_counts_what_was_answered(live: LiveService) -> None:
    text_of(live.chat("Hello"))
    status = live.status()
    assert status["ok"] and status["engines"][0]["state"] == "ready"
    assert status["memory"]["kv_cache_tokens"] == 524_288
    assert {entry["role"] for entry in status["processes"]} == {"engine", "media", "worker"}
    assert status["gpus"] == []
    assert "no-gpus" in [problem["code"] for problem in status["problems"]]


def test_plain_metrics_page(live: LiveService) -> None:
    page = httpx.get(f"{live.url}/metrics").text
    assert "vllm:num_requests_running" in page
