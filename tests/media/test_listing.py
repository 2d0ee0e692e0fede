"""Folders, for people and for programs."""

from __future__ import annotations

import json
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import pytest

from qwen_fp8_ops.media import listing
from qwen_fp8_ops.media.listing import human_size
from qwen_fp8_ops.outside.jail import Jail

from .conftest import ODD_NAMES

if TYPE_CHECKING:
    from .conftest import MediaServer


class Links(HTMLParser):
    """The links of a page, with their texts."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.tags: set[str] = set()
        self._href: str | None = None
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._href = dict(attrs).get("href") if tag == "a" else self._href

    def handle_data(self, data: str) -> None:
        if self._href is not None:
            self.found.append((self._href, data))
            self._href = None


def test_page_names_what_can_be_fetched_and_nothing_else(server: MediaServer) -> None:
    reply = server.ask("/")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    shown = [text for _, text in Links(reply.body).found]
    assert shown == ["empty/", "inside-folder/", "sub/", "hello.txt", "inside-link.txt", "large.mp4", "none.bin", "small.bin"]
    assert b"3.0 MB" in reply.body


def test_odd_names_are_shown_as_they_are_and_their_links_work(server: MediaServer) -> None:
    page = Links(server.ask("/sub/").body)
    texts = [text for _, text in page.found]
    assert texts[0] == "../"
    assert sorted(texts[1:]) == sorted(["deep/", *ODD_NAMES])
    assert "b" not in page.tags, "a file's name became markup"
    for href, text in page.found[2:]:
        target = urlsplit(urljoin("http://host/sub/", href)).path
        assert server.ask(target).body == text.encode()


def test_json_for_programs(server: MediaServer) -> None:
    reply = server.ask("/sub/", Accept="application/json")
    assert reply.headers["content-type"] == "application/json"
    assert "Accept" in reply.headers["vary"]
    told = json.loads(reply.body)
    assert (told["schema"], told["path"], told["truncated"]) == (1, "/sub/", False)
    entries = {entry["name"]: entry for entry in told["entries"]}
    assert set(entries) == {"deep", *ODD_NAMES}
    assert entries["deep"]["type"] == "folder"
    assert entries["a b.txt"] | {"modified": ""} == {
        "name": "a b.txt",
        "type": "file",
        "url": "./a%20b.txt",
        "modified": "",
        "size_bytes": 7,
        "content_type": "text/plain; charset=utf-8",
    }
    assert "size_bytes" not in entries["deep"]


def test_folder_without_slash_is_redirected_within_the_server(server: MediaServer) -> None:
    reply = server.ask("/sub/deep")
    assert (reply.status, reply.headers["location"]) == (301, "/sub/deep/")
    assert server.ask("//sub/deep").headers["location"] == "/sub/deep/"


def test_file_with_slash_is_absent(server: MediaServer) -> None:
    assert server.ask("/hello.txt/").status == 404


def test_head_and_empty_folder(server: MediaServer) -> None:
    got, head = server.ask("/empty/"), server.ask("/empty/", "HEAD")
    assert b"empty" in got.body
    assert (head.body, head.headers["content-length"]) == (b"", got.headers["content-length"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_folder_we_may_not_read_is_absent(server: MediaServer) -> None:
    folder = server.root / "closed"
    folder.mkdir(mode=0)
    try:
        assert server.ask("/closed/").status == 404
    finally:
        folder.rmdir()


def test_name_that_is_not_utf8(server: MediaServer) -> None:
    path = os.fsencode(server.root) + b"/empty/\xff\xfe.txt"
    with open(path, "wb") as file:
        file.write(b"odd")
    try:
        entry = json.loads(server.ask("/empty/", Accept="application/json").body)["entries"][0]
        assert entry["url"] == "./%FF%FE.txt"
        assert server.ask("/empty/").status == 200
        assert server.ask("/empty/%FF%FE.txt").body == b"odd"
    finally:
        os.unlink(path)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_940, "99.9 kB"),
        (99_960, "100 kB"),
        (999_600, "1.0 MB"),
        (24 * 10**10, "240 GB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert human_size(size) == text


def test_a_page_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST_ENTRIES", 3)
    for number in range(3):
        (tmp_path / f"{number}.txt").touch()
    whole = listing.read_folder(Jail(tmp_path), "")
    (tmp_path / "3.txt").touch()
    cut = listing.read_folder(Jail(tmp_path), "")
    assert whole
    assert cut
    assert (len(whole.entries), whole.truncated, len(cut.entries), cut.truncated) == (3, False, 3, True)
    assert b"Only 3 entries" in listing.as_html(cut)
    assert listing.read_folder(Jail(tmp_path), "absent/") is None
    assert listing.read_folder(Jail(tmp_path), "0.txt") is None
