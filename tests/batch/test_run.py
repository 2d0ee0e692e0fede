from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.client.async_api import Endpoint
from qwen_fp8_ops.client.batch import asker, retry
from qwen_fp8_ops.client.batch.contact import make_contact
from qwen_fp8_ops.client.batch.door import phase
from qwen_fp8_ops.client.batch.inputs import Listed
from qwen_fp8_ops.client.batch.item import Item, Outcome, Source
from qwen_fp8_ops.client.batch.journal import Journal
from qwen_fp8_ops.client.batch.run import carry_out
from qwen_fp8_ops.client.batch.tally import Tally
from qwen_fp8_ops.client.failures import ApiError
from qwen_fp8_ops.client.request import Limits
from qwen_fp8_ops.errors import ConfigError, NotRunningError, OpsError
from tests.batch.quick_server import MODEL, Ask, Say, answer, by_content, error, models_page, serving
from tests.batch.scenery import RECIPE, make_images, options, outcomes, run_batch, texts
from tests.ports import free_port
from tests.waiting import wait_for

SHORT = Limits(read_seconds=0.5)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.01)


def test_every_item_is_asked_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with serving(lambda ask: answer("yes", pause=0.05)) as server:
        tally, _ = run_batch(path, server.url, texts(50), concurrency=6)
        assert (tally.answered, tally.failed, tally.kept, tally.total) == (50, 0, 0, 50)
        assert (server.asked, server.most_at_once) == (50, 6)
        again, _ = run_batch(path, server.url, texts(52))
        assert (again.kept, again.answered, server.asked) == (50, 2, 52)
    assert len(outcomes(path)) == 52


def test_what_is_sent(tmp_path: Path) -> None:
    seen: list[Any] = []

    def script(ask: Ask) -> Say:
        seen.append(ask.json)
        return answer("\n\nA field.", reasoning="hmm", tokens=3)

    images = make_images(tmp_path / "images", 2)
    item = Item("a", "What?", (Source(str(images / "0000.png")), Source("http://elsewhere/b.png")), seed=5)
    with serving(script) as server:
        run_batch(tmp_path / "j", server.url, Listed([item]))
    (body,) = seen
    assert {name: body[name] for name in ("model", "max_tokens", "temperature", "seed", "stream")} == {
        "model": MODEL,
        "max_tokens": 9,
        "temperature": 0,
        "seed": 5,
        "stream": False,
    }
    (message,) = body["messages"]
    first, second, text = message["content"]
    assert first["image_url"]["url"].startswith("data:image/png;base64,")
    assert second == {"type": "image_url", "image_url": {"url": "http://elsewhere/b.png"}}
    assert text == {"type": "text", "text": "What?"}
    kept = outcomes(tmp_path / "j")["a"]
    assert (kept.answer, kept.reasoning, kept.finish_reason, kept.tries) == ("\n\nA field.", "hmm", "stop", 1)


@pytest.mark.parametrize(
    ("text", "reasoning", "said"),
    [
        ("<think>so</think>\n\nYes.", "so", "Yes."),
        ("so it is</think>Yes.", "so it is", "Yes."),
        ("<think>and on and on", "and on and on", ""),
        ("a < b, I think", "", "a < b, I think"),
    ],
)
def test_thinking_is_kept_apart_also_where_the_server_does_not(tmp_path: Path, text: str, reasoning: str, said: str) -> None:
    with serving(lambda ask: answer(text, finish="length")) as server:
        tally, _ = run_batch(tmp_path / "j", server.url, texts(1))
    kept = outcomes(tmp_path / "j")["item 0"]
    assert (kept.reasoning, kept.answer) == (reasoning, said)
    assert (tally.truncated, tally.empty) == (1, int(not said))


HEALING = [
    error(500),
    error(502),
    error(504),
    error(408),
    Say(body=b"garbage", status=200),
    Say(body=b'{"choices": [{"message": 5}]}'),
    Say(body=b"[" * 300_000),
    Say(500, b"[" * 300_000),
    Say(body=b"x" * 500, cut=100),
    Say(cut=0),
    Say(hang=True),
    error(429, retry_after="0"),
    error(503, retry_after="0"),
    error(429),
]


@pytest.mark.parametrize("trouble", HEALING, ids=lambda said: f"{said.status}-{said.body[:8]!r}-{said.cut}-{said.hang}")
def test_trouble_that_passes_costs_no_item(tmp_path: Path, trouble: Say) -> None:
    """Two of the tries of every third item."""

    def script(ask: Ask) -> Say:
        number = int(ask.json["messages"][0]["content"].split()[1])
        return trouble if number % 3 == 0 and ask.try_number < 2 else by_content(ask)

    with serving(script) as server:
        tally, _ = run_batch(tmp_path / "j", server.url, texts(7), limits=SHORT)
    assert (tally.answered, tally.failed) == (7, 0)


def test_a_slow_answer_is_an_answer(tmp_path: Path) -> None:
    with serving(lambda ask: answer("slow but whole", bit_by_bit=True)) as server:
        tally, _ = run_batch(tmp_path / "j", server.url, texts(5))
    assert tally.answered == 5


@pytest.mark.parametrize(
    ("trouble", "code", "status", "tries"),
    [
        (error(400, "too many tokens"), "bad-request", 400, 1),
        (error(422, "poison"), "bad-request", 422, 1),
        (error(413), "too-large", 413, 1),
        (error(500), "server-error", 500, 3),
        (Say(body=b"garbage"), "bad-answer", None, 3),
        (Say(hang=True), "timed-out", None, 3),
        (Say(body=b"x" * 500, cut=300), "broken-answer", None, 3),
    ],
)
def test_trouble_that_stays_is_a_record_and_stops_nobody_else(tmp_path: Path, trouble: Say, code: str, status: int | None, tries: int) -> None:
    path = tmp_path / "j"
    sick = [True]

    def script(ask: Ask) -> Say:
        return trouble if sick[0] and ask.json["messages"][0]["content"] == "question 2" else by_content(ask)

    with serving(script) as server:
        tally, _ = run_batch(path, server.url, texts(6), tries=3, limits=SHORT)
        failure = outcomes(path)["item 2"].failure
        assert failure
        assert (failure.code, failure.status, outcomes(path)["item 2"].tries) == (code, status, tries)
        assert (tally.answered, tally.failed, tally.problems) == (5, 1, {code: 1})
        asked = server.asked
        again, _ = run_batch(path, server.url, texts(6))
        assert (again.kept, again.kept_failed, server.asked) == (6, 1, asked)  # not asked again until that is asked for
        sick[0] = False
        healed, _ = run_batch(path, server.url, texts(6), retry_failed=True)
        assert (healed.kept, healed.answered, healed.failed) == (5, 1, 0)
    assert outcomes(path)["item 2"].ok


@pytest.mark.parametrize(
    ("trouble", "code"), [(error(401), "unauthorized"), (error(404, "The model `x` does not exist."), "no-such-model"), (error(404), "no-such-route")]
)
def test_where_nobody_can_be_answered_the_run_ends_at_once(tmp_path: Path, trouble: Say, code: str) -> None:
    path = tmp_path / "j"
    with serving(lambda ask: by_content(ask) if ask.number < 5 else trouble) as server:
        with pytest.raises(ApiError) as caught:
            run_batch(path, server.url, texts(5000))
        assert caught.value.code == code
        assert server.asked < 30
    assert len(outcomes(path)) == 5
    assert all(outcome.ok for outcome in outcomes(path).values())


def test_a_service_that_goes_away_is_waited_for_and_no_try_is_lost(tmp_path: Path) -> None:
    path, port = tmp_path / "j", free_port()
    tally, said, errors = Tally(), list[str](), list[BaseException]()

    def work() -> None:
        try:
            with Journal(path, RECIPE) as journal:
                carry_out(texts(200), RECIPE, journal, lambda: Endpoint(f"http://127.0.0.1:{port}"), options(tries=1), tally, said.append)
        except BaseException as error:  # noqa: BLE001 # told by the test
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: any("waiting: Nothing answers" in line for line in said), "it waits for a service that is not there yet")
    with serving(lambda ask: answer("yes", pause=0.02), port=port):
        wait_for(lambda: tally.answered > 20, "it works")
        loading = {"gate": {"draining": True}, "service": {"state": "ready"}}
    wait_for(lambda: len(said) >= 3, "it waits again")
    pages = {"/service": (200, json.dumps(loading).encode())}
    with serving(pages=pages, port=port) as server:
        wait_for(lambda: "waiting: the service is stopping" in said, "it sees the drain")
        state = {"gate": {"draining": False}, "service": {"state": "starting", "load": {"phase": "weights", "done": 3, "total": 24}}}
        server.pages["/service"] = 200, json.dumps(state).encode()
        wait_for(lambda: "waiting: the service is starting (weights 3/24)" in said, "it tells the phase")
        assert server.asked == 0
        state["service"]["state"] = "ready"
        server.pages["/service"] = 200, json.dumps(state).encode()
        thread.join(60)
    assert not errors
    # What was on its way when the server went was taken by it, and with one try it may fail; nothing else does.
    assert tally.answered + tally.failed == 200
    assert tally.failed <= 4


def test_patience_has_an_end_and_nothing_is_lost_by_it(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with serving(lambda ask: by_content(ask) if ask.number < 10 else error(503)) as server:
        server.pages["/health"] = 503, b""
        server.pages["/service"] = 404, b""
        with pytest.raises(NotRunningError, match="took no requests for"):
            run_batch(path, server.url, texts(10), patience_seconds=0.5)
        assert server.asked == 0
        server.pages["/health"] = 200, b""
        looks = len(server.looks)
        tally, _ = run_batch(path, server.url, texts(10))
        assert tally.answered == 10
        assert "/metrics" not in server.looks[looks:]  # a fixed concurrency asks for none


def test_who_is_always_put_off_does_not_hold_up_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asker, "MOST_REFUSALS", 4)
    monkeypatch.setattr(retry, "LONGEST_WAIT_SECONDS", 0.05)
    with serving(lambda ask: error(503) if ask.json["messages"][0]["content"] == "question 1" else by_content(ask)) as server:
        tally, _ = run_batch(tmp_path / "j", server.url, texts(4))
    assert (tally.answered, tally.failed, tally.problems) == (3, 1, {"unavailable": 1})
    assert outcomes(tmp_path / "j")["item 1"].tries == 0


def test_retry_after_is_kept_to_by_all(tmp_path: Path) -> None:
    moments: list[float] = []

    def script(ask: Ask) -> Say:
        moments.append(time.monotonic())
        return error(429, retry_after="1") if ask.number == 0 else by_content(ask)

    with serving(script) as server:
        tally, _ = run_batch(tmp_path / "j", server.url, texts(5), concurrency=1)
    assert tally.answered == 5
    assert moments[1] - moments[0] >= 1.0


def test_a_service_with_a_new_address_and_key_is_found_again(tmp_path: Path) -> None:
    places: list[Endpoint] = []
    tally = Tally()
    with serving(key="old") as first, serving(key="new") as second, Journal(tmp_path / "j", RECIPE) as journal:
        places.append(Endpoint(first.url, "old"))

        def script(ask: Ask) -> Say:
            if ask.number == 9:  # the service was started again, elsewhere
                places.append(Endpoint(second.url, "new"))
                first.key = "nobody's"
            return by_content(ask)

        first.script = script
        carry_out(texts(40), RECIPE, journal, lambda: places[-1], options(), tally, print)
        assert first.asked + second.asked == 40
        assert second.asked >= 25
    assert (tally.answered, tally.failed) == (40, 0)


def test_a_changed_image_is_asked_again_and_a_copied_one_is_not(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images", 3)
    inputs = Listed([Item(path.name, "Look.", (Source(str(path)),)) for path in sorted(images.iterdir())])
    with serving() as server:
        run_batch(tmp_path / "j", server.url, inputs)
        copied = (images / "0000.png").read_bytes()
        (images / "0000.png").unlink()
        (images / "0000.png").write_bytes(copied)
        make_images(images, 2, (33, 16))
        (images / "0000.png").write_bytes(copied)
        (images / "0002.png").unlink()
        tally, _ = run_batch(tmp_path / "j", server.url, inputs)
        assert (tally.kept, tally.answered) == (2, 1)  # the answer about a file that is gone stays
        assert server.asked == 4


def test_a_broken_image_fails_alone_and_is_asked_when_it_is_mended(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images", 3)
    good = (images / "0001.png").read_bytes()
    (images / "0001.png").write_bytes(good[:40])
    missing = Item("missing", "Look.", (Source(str(images / "nowhere.png")),))
    inputs = Listed([*(Item(path.name, "Look.", (Source(str(path)),)) for path in sorted(images.iterdir())), missing])
    with serving() as server:
        tally, _ = run_batch(tmp_path / "j", server.url, inputs)
        assert (tally.answered, tally.problems) == (2, {"broken-image": 1, "no-such-file": 1})
        (images / "0001.png").write_bytes(good)
        mended, _ = run_batch(tmp_path / "j", server.url, inputs)
        assert (mended.kept, mended.kept_failed, mended.answered) == (3, 1, 1)


def test_the_pace_adapts_to_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen_fp8_ops.client.batch.pace.WINDOW_SECONDS", 0.2)
    monkeypatch.setattr("qwen_fp8_ops.client.batch.run.TICK_SECONDS", 0.05)
    with serving(lambda ask: answer("x", pause=0.05)) as server:
        tally, _ = run_batch(tmp_path / "j", server.url, texts(100), concurrency=None, start=2)
        assert tally.answered == 100
        assert server.most_at_once > 2
        assert "/metrics" in server.looks
    waiting = {"/metrics": (200, b"vllm:num_requests_waiting 90.0\n")}
    with serving(lambda ask: answer("x", pause=0.05), pages=waiting) as server:
        tally, _ = run_batch(tmp_path / "k", server.url, texts(100), concurrency=None, start=16)
        assert tally.limit < 16
        assert server.most_at_once <= 16


def test_the_model_that_is_asked_for() -> None:
    with serving(pages={"/v1/models": models_page("first", "second")}) as server:
        contact = make_contact(lambda: Endpoint(server.url), limits=Limits(), patience_seconds=30, say=print)
    assert contact.model(None) == "first"
    assert contact.model(None, like="second") == "second"
    assert contact.model(None, like="my own name for it") == "first"
    with pytest.raises(ConfigError, match="has no model 'third'") as caught:
        contact.model("third")
    assert caught.value.fix == "It has: first, second"


@pytest.mark.parametrize(
    "page", [b"", b"[]", b"{}", b"null", b'{"gate": 1, "service": 2}', b"<html>", b'{"gate": {"draining": false}, "service": null}', b"[" * 300_000]
)
def test_a_page_that_says_nothing_stops_nobody(page: bytes) -> None:
    assert phase(200, page) == ""


def test_a_wait_that_no_outage_takes_is_not_waited() -> None:
    assert 20 <= retry.wait_seconds(1, 20) <= 22
    assert retry.wait_seconds(1, 1e8) <= 330


def test_a_full_disk_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append = Journal.append

    def refuse_the_fifth(journal: Journal, outcome: Outcome) -> None:
        if len(journal) == 4:
            raise OpsError("Cannot write j: No space left on device", code="cannot-write")
        append(journal, outcome)

    monkeypatch.setattr(Journal, "append", refuse_the_fifth)
    with serving() as server:
        with pytest.raises(OpsError, match="No space left"):
            run_batch(tmp_path / "j", server.url, texts(5000))
        assert server.asked < 30
    assert len(outcomes(tmp_path / "j")) == 4
