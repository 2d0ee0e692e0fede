"""The page of wrong answers: whatever a model or a file says on it, it stays text."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qwen_fp8_ops.client.batch.item import Outcome
from qwen_fp8_ops.client.batch.qa.asks import Asks
from qwen_fp8_ops.client.batch.qa.metrics import Metrics
from qwen_fp8_ops.client.batch.qa.questions import Question
from qwen_fp8_ops.client.batch.qa.report import LONGEST_TEXT, MOST_SHOWN, page
from qwen_fp8_ops.client.batch.qa.verdicts import Verdict, judge
from qwen_fp8_ops.client.batch.qa.words import as_text, errors_as_text
from tests.batch.qa.exam import images

TAGS = {
    *["html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "table", "tr", "th", "td", "article"],
    *["span", "pre", "ol", "li", "b", "details", "summary", "img"],
}
ATTRIBUTES = {"lang", "charset", "http-equiv", "content", "name", "class", "dir", "alt", "src"}


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert {name for name, _ in attrs} <= ATTRIBUTES
        self.addresses += [value or "" for name, value in attrs if name == "src"]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images(tmp_path_factory.mktemp("data"))


def shown(words: str, data: Path, count: int = 1) -> tuple[str, dict[str, object], list[Verdict]]:
    """The page of one question in which everything that may be anything is ``words``."""
    name = words[:40].encode("utf-8", "replace").decode()  # a name that is not Unicode is refused when the questions are read
    asked = Question(1, words, words, words, None, words, None, ("images/red.png", f"{name}.png"), words, words)
    asks = Asks((asked,), data)
    verdict = judge(asked, asks, lambda ask: Outcome(words, "", answer=f"{words}\nno", reasoning=words))
    assert verdict is not None
    metrics = Metrics()
    for _ in range(count):
        metrics.add(verdict)
    value = {"model": words, "question_path": words, "repeat": 1, "circular": False, "skipped_rows": [], **metrics.as_json()}
    return "".join(page(value, [verdict] * count, data)), value, [verdict] * count


@given(st.one_of(st.text(min_size=1, max_size=80), st.text(alphabet="<>&\"'/= scriptimgonrx:;!-[]\n\0", min_size=1, max_size=60)))
@example("</pre><script>alert(1)</script>")
@example("--><svg/onload=alert(1)>")
@example("\" onerror='x")
@example("\u202e\x1b[2J\ud800")
def test_whatever_is_on_the_page_is_text(data: Path, words: str) -> None:
    html, _, _ = shown(words, data)
    html.encode("utf-8")
    reader = Reader()
    reader.feed(html)
    assert set(reader.tags) <= TAGS
    assert reader.tags.count("img") == 1
    assert all(address.startswith("data:image/jpeg;base64,") for address in reader.addresses)


@given(st.text(min_size=1, max_size=60))
@example("\x1b]0;title\x07\x1b[31m\r\n\u202e")
def test_whatever_is_listed_on_a_terminal_is_one_line_of_letters(data: Path, words: str) -> None:
    _, value, wrong = shown(words, data)
    text = errors_as_text(wrong)
    assert "\n" not in text
    assert text.isprintable()
    assert all(line.isprintable() for line in as_text(value).splitlines())


def test_a_long_answer_and_many_questions_do_not_make_an_endless_page(data: Path) -> None:
    html, _, _ = shown("x" * 10 * LONGEST_TEXT, data)
    assert len(html) < 12 * LONGEST_TEXT
    html, _, _ = shown("y", data, MOST_SHOWN + 5)
    assert html.count("<article>") == MOST_SHOWN
    assert "5 more are in the results file" in html
