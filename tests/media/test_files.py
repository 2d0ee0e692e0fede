"""Files: bytes, headers, ranges, conditions."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import ODD_NAMES, read_all

if TYPE_CHECKING:
    from .conftest import MediaServer

SIZES = {"hello.txt": 13, "none.bin": 0, "small.bin": 3072, "large.mp4": 3_000_000}


@pytest.mark.parametrize("name", SIZES)
def test_whole_file(server: MediaServer, name: str) -> None:
    reply = server.ask(f"/{name}")
    assert (reply.status, reply.body) == (200, (server.root / name).read_bytes())
    assert reply.headers["content-length"] == str(SIZES[name])
    assert reply.headers["accept-ranges"] == "bytes"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize("name", SIZES)
def test_head_is_get_without_body(server: MediaServer, name: str) -> None:
    got, head = server.ask(f"/{name}"), server.ask(f"/{name}", "HEAD", Range="bytes=1-2")
    assert (head.status, head.body) == (200, b"")
    assert {**head.headers, "date": ""} == {**got.headers, "date": ""}


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(server: MediaServer, name: str) -> None:
    assert server.ask(f"/sub/{quote(name)}").body == name.encode()


def test_query_is_ignored_and_absolute_form_is_understood(server: MediaServer) -> None:
    assert server.ask("/hello.txt?v=1&x=/../y").body == b"hello, world\n"
    assert server.ask("http://anything:99/hello.txt").body == b"hello, world\n"
    assert server.ask("//sub///deep//a.json").body == b"{}"


def test_link_that_stays_inside_is_served(server: MediaServer) -> None:
    assert server.ask("/inside-link.txt").body == b"hello, world\n"
    assert server.ask("/inside-folder/deep/a.json").body == b"{}"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.mp4", "video/mp4"),
        ("a.WEBM", "video/webm"),
        ("a.mkv", "video/x-matroska"),
        ("a.mov", "video/quicktime"),
        ("a.avi", "video/x-msvideo"),
        ("a.mp3", "audio/mpeg"),
        ("a.wav", "audio/wav"),
        ("a.flac", "audio/flac"),
        ("a.m4a", "audio/mp4"),
        ("a.jpg", "image/jpeg"),
        ("a.JPEG", "image/jpeg"),
        ("a.png", "image/png"),
        ("a.webp", "image/webp"),
        ("a.gif", "image/gif"),
        ("a.avif", "image/avif"),
        ("a.heic", "image/heic"),
        ("a.bmp", "image/bmp"),
        ("a.tiff", "image/tiff"),
        ("a.json", "application/json"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.html", "text/html; charset=utf-8"),
        ("a.svg", "image/svg+xml"),
        ("a.unheard-of", "application/octet-stream"),
        ("none", "application/octet-stream"),
    ],
)
def test_content_types(server: MediaServer, name: str, kind: str) -> None:
    (server.root / "empty" / name).touch()
    try:
        reply = server.ask(f"/empty/{name}", "HEAD")
    finally:
        (server.root / "empty" / name).unlink()
    assert reply.headers["content-type"] == kind
    assert reply.headers.get("content-security-policy") == ("sandbox" if name in ("a.html", "a.svg") else None)


numbers = st.integers(0, 4000) | st.integers(2_999_000, 3_001_000) | st.just(10**30)
range_texts = st.builds("bytes={}-{}".format, numbers | st.just(""), numbers | st.just(""))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["none.bin", "small.bin", "large.mp4"]), text=range_texts)
def test_single_ranges_are_slices(server: MediaServer, name: str, text: str) -> None:
    content = (server.root / name).read_bytes()
    first, last = text.removeprefix("bytes=").split("-")
    if first:
        expected, wrong = content[int(first) : int(last) + 1 if last else None], bool(last) and int(last) < int(first)
    else:
        expected, wrong = content[max(0, len(content) - int(last)) :] if last else b"", not last
    reply = server.ask(f"/{name}", Range=text)
    if wrong:
        assert (reply.status, reply.body) == (200, content)
    elif not expected:
        assert (reply.status, reply.headers["content-range"]) == (416, f"bytes */{len(content)}")
    else:
        start = int(first) if first else max(0, len(content) - int(last))
        assert (reply.status, reply.body) == (206, expected)
        assert reply.headers["content-range"] == f"bytes {start}-{start + len(expected) - 1}/{len(content)}"
        assert reply.headers["content-length"] == str(len(expected))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
    header=st.sampled_from(["Range", "If_Range", "If_None_Match", "If_Modified_Since"]),
)
def test_senseless_headers_give_the_whole_file(server: MediaServer, text: str, header: str) -> None:
    reply = server.ask("/hello.txt", **{header: f"x {text}"})
    assert (reply.status, reply.body) == (200, b"hello, world\n")


@pytest.mark.parametrize("text", ["bytes=0-1,3-4", "items=0-1", "bytes=a-b", "bytes=-", "bytes=1", "bytes=--1", "bytes=5-2", ""])
def test_other_ranges_give_the_whole_file(server: MediaServer, text: str) -> None:
    assert server.ask("/hello.txt", Range=text).status == 200


def test_repeated_range_header_gives_the_whole_file(server: MediaServer) -> None:
    raw = server.send_raw(b"GET /hello.txt HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1\r\nRange: bytes=3-4\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 200")


def test_if_none_match(server: MediaServer) -> None:
    etag = server.ask("/hello.txt").headers["etag"]
    for matching in (etag, f"W/{etag}", "*", f'"other", {etag}'):
        reply = server.ask("/hello.txt", If_None_Match=matching)
        assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", etag)
    assert server.ask("/hello.txt", If_None_Match='"other"').status == 200


def test_if_modified_since(server: MediaServer) -> None:
    modified = server.ask("/hello.txt").headers["last-modified"]
    assert server.ask("/hello.txt", If_Modified_Since=modified).status == 304
    assert server.ask("/hello.txt", If_Modified_Since="Mon, 01 Jan 2001 00:00:00 GMT").status == 200
    assert server.ask("/hello.txt", If_Modified_Since=modified, If_None_Match='"other"').status == 200, "If-None-Match counts first"


def test_if_range(server: MediaServer) -> None:
    headers = server.ask("/hello.txt").headers
    for same in (headers["etag"], headers["last-modified"]):
        assert server.ask("/hello.txt", Range="bytes=0-4", If_Range=same).body == b"hello"
    for other in ('"other"', f"W/{headers['etag']}", "Mon, 01 Jan 2001 00:00:00 GMT"):
        assert server.ask("/hello.txt", Range="bytes=0-4", If_Range=other).status == 200


def test_a_changed_file_has_another_version(server: MediaServer) -> None:
    path = server.root / "sub" / "changing.txt"
    path.write_bytes(b"one")
    before = server.ask("/sub/changing.txt").headers
    path.write_bytes(b"two")
    os.utime(path, (2_000_000_000, 2_000_000_000))
    after = server.ask("/sub/changing.txt", If_None_Match=before["etag"])
    path.unlink()
    assert (after.status, after.body) == (200, b"two")


@pytest.mark.parametrize("seconds", [-(10**9), 2**38])
def test_a_file_from_an_impossible_time(server: MediaServer, seconds: int) -> None:
    path = server.root / "empty" / "when.txt"
    path.touch()
    os.utime(path, (seconds, seconds))
    try:
        assert server.ask("/empty/when.txt").status == 200
        assert server.ask("/empty/").status == 200
    finally:
        path.unlink()


def test_requests_in_a_row_are_answered_in_order(server: MediaServer) -> None:
    names = ["hello.txt", "large.mp4", "nothing", "sub/", "small.bin"] * 4
    asked = "".join(f"GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n" for name in names)
    with server.connect() as sock:
        sock.sendall(asked.encode() + b"GET /hello.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        raw = read_all(sock)
    listing = server.ask("/sub/").body
    for name in [*names, "hello.txt"]:
        head, _, raw = raw.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        body, raw = raw[:length], raw[length:]
        assert body == {"nothing": b"404 Not Found\n", "sub/": listing}.get(name) or body == (server.root / name).read_bytes()
    assert raw == b""


def test_a_request_in_single_bytes(server: MediaServer) -> None:
    with server.connect() as sock:
        for byte in b"GET /hello.txt HTTP/1.1\r\nHost: x\r\nRange: bytes=7-11\r\nConnection: close\r\n\r\n":
            sock.sendall(bytes([byte]))
        assert read_all(sock).endswith(b"\r\n\r\nworld")


def test_http_1_0_closes_unless_asked(server: MediaServer) -> None:
    with server.connect() as sock:
        sock.sendall(b"GET /hello.txt HTTP/1.0\r\n\r\n")
        assert b"Connection: close" in read_all(sock)
    with server.connect() as sock:
        sock.sendall(b"GET /hello.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2 + b"GET /hello.txt HTTP/1.0\r\n\r\n")
        assert read_all(sock).count(b"hello, world") == 3


def test_a_client_that_leaves_in_the_middle_disturbs_nobody(server: MediaServer) -> None:
    for _ in range(5):
        with server.connect() as sock:
            sock.sendall(b"GET /large.mp4 HTTP/1.1\r\nHost: x\r\n\r\n")
            sock.recv(10)
    assert server.ask("/hello.txt").status == 200
    assert len(server.lines) == 1, server.lines
