from __future__ import annotations

import base64
import os
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import pytest

from qwen_fp8_ops.client.media_files import MediaError, MediaServer, media_url
from qwen_fp8_ops.client.media_types import Kind, describe, detect
from qwen_fp8_ops.client.messages import assistant_message, media_part, system_message, user_message
from tests.media_files import make_image, make_video

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 32
SERVER_URL = "http://127.0.0.1:8080"

HEADS = [
    (PNG, "image/png"),
    (b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg"),
    (b"GIF89a\x01\0\x01\0", "image/gif"),
    (b"RIFF\x10\0\0\0WEBPVP8 ", "image/webp"),
    (b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", "image/bmp"),
    (b"II*\0\x08\0\0\0", "image/tiff"),
    (b"MM\0*\0\0\0\x08", "image/tiff"),
    (b"\0\0\0\x18ftypisom\0\0\2\0", "video/mp4"),
    (b"\0\0\0\x18ftypmp42", "video/mp4"),
    (b"\0\0\0\x14ftypqt  ", "video/quicktime"),
    (b"\0\0\0\x08wide\0\0\0\0mdat", "video/quicktime"),
    (b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm", "video/webm"),
    (b"\x1a\x45\xdf\xa3\xa3B\x86\x81\x01B\x82\x88matroska", "video/x-matroska"),
    (b"RIFF\x10\0\0\0AVI LIST", "video/x-msvideo"),
]
NEITHER = [
    (b"", "data"),
    (b"%PDF-1.7", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"hello world", "text that begins with 'hello world'"),
    (b"BM is how this text begins, no bitmap", "text"),
    ("länger als das, was man ansieht ä".encode(), "text"),
    (b"<svg xmlns=", "text that begins with '<svg"),
    (b"RIFF\x10\0\0\0WAVEfmt ", "'WAVE'"),
    (b"\0\0\0\x18ftypheic", "'heic'"),
    (b"\0\0\0\x18ftypM4A ", "'M4A'"),
    (b"\x1a\x45\xdf\xa3nothing known", "data that begins with 1a 45"),
    (b"\x00\x01\x02\x03\x04\x05\x06\x07\x08", "data that begins with 00 01 02 03 04 05 06 07"),
]


@pytest.mark.parametrize(("head", "mime"), HEADS)
def test_type_by_content(head: bytes, mime: str) -> None:
    found = detect(head)
    assert found is not None
    assert (found.mime, found.kind) == (mime, mime.partition("/")[0])


@pytest.mark.parametrize(("head", "words"), NEITHER)
def test_what_is_neither_is_described(head: bytes, words: str) -> None:
    assert detect(head) is None
    assert words in describe(head)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.webp", "a.bmp", "a.tiff"])
def test_real_images(tmp_path: Path, name: str) -> None:
    path = make_image(tmp_path / name)
    mime, _, data = media_url(path, "image").removeprefix("data:").partition(";base64,")
    assert mime == {"a.jpg": "image/jpeg"}.get(name, f"image/{name[2:]}")
    assert base64.b64decode(data) == path.read_bytes()


def test_a_real_video(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=2)
    assert media_url(path, "video") == "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()


def test_the_names_ending_is_no_evidence(tmp_path: Path) -> None:
    path = make_image(tmp_path / "a.png").rename(tmp_path / "a.txt")
    assert media_url(str(path), "image").startswith("data:image/png;")


@pytest.mark.parametrize("url", ["http://h/a.png", "https://h/a%20b.mp4?x=1#y", "HTTP://h/a", "data:image/png;base64,AAAA"])
def test_urls_are_passed_on(url: str) -> None:
    assert media_url(url, "image") == url


@pytest.mark.parametrize("url", ["ftp://h/a.png", "file:///etc/passwd", "s3://bucket/a"])
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(MediaError) as caught:
        media_url(url, "image")
    assert caught.value.code == "bad-url"


def error_of(path: str | Path, kind: Kind = "image", limit_bytes: int | None = None) -> MediaError:
    with pytest.raises(MediaError) as caught:
        media_url(path, kind, limit_bytes=limit_bytes)
    assert caught.value.fix
    return caught.value


def test_files_that_cannot_be_sent(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("no image")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    for name, code in {
        "gone": "no-such-file",
        "": "not-a-file",
        "empty": "empty-file",
        "pipe": "not-a-file",
        "loop": "unreadable-file",
        "text": "wrong-media",
    }.items():
        error = error_of(tmp_path / name)
        assert error.code == code
        assert str(tmp_path / name) in error.message
    assert "text that begins with 'no image'" in error_of(tmp_path / "text").message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_others(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "a.png").chmod(0)
    assert error_of(tmp_path / "a.png").code == "unreadable-file"


def test_names_that_cannot_be_printed_are_told_all_the_same(tmp_path: Path) -> None:
    message = error_of(os.fsdecode(b"no\xff\n\x1bfile")).message
    assert message.isprintable()
    assert "no\\xff\\n\\x1bfile" in message
    assert error_of("nul\0byte").code == "no-such-file"
    assert error_of("x" * 5000).message.isprintable()


def test_a_video_given_as_an_image_and_the_other_way_round(tmp_path: Path) -> None:
    error = error_of(make_video(tmp_path / "b.mp4", frames=2), "image")
    assert error.message.endswith("b.mp4 is a video (video/mp4), not an image")
    assert "--video" in error.fix
    assert "is an image (image/png), not a video" in error_of(make_image(tmp_path / "a.png"), "video").message


def test_the_body_limit_counts_what_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    sent = len(media_url(path, "image"))
    assert len(media_url(path, "image", limit_bytes=sent)) == sent
    error = error_of(path, limit_bytes=sent - 1)
    assert error.code == "too-large"
    assert "MAX_BODY_MB" in error.fix


@pytest.fixture
def server(tmp_path: Path) -> MediaServer:
    root = tmp_path / "root of media"
    root.mkdir()
    return MediaServer(root, SERVER_URL + "/")


@pytest.mark.parametrize("name", ["a.png", "sub/a.png", "a b%c#d?e.png", "ä'\";&.png", "-x.png", "日本\n.png"])
def test_a_file_under_the_root_goes_by_url(server: MediaServer, name: str) -> None:
    path = server.root / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(PNG)
    url = media_url(path, "image", server=server, limit_bytes=1)
    assert url.startswith(f"{SERVER_URL}/")
    assert url.isascii()
    assert url.isprintable()
    assert unquote_to_bytes(urlsplit(url).path) == b"/" + os.fsencode(name)
    assert not urlsplit(url).query


def test_a_name_that_is_not_utf8_goes_by_url_too(server: MediaServer) -> None:
    path = server.root / os.fsdecode(b"\xff.png")
    path.write_bytes(PNG)
    assert media_url(path, "image", server=server) == f"{SERVER_URL}/%FF.png"


def test_relative_paths_and_links_are_followed(server: MediaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (server.root / "a.png").write_bytes(PNG)
    outside = tmp_path / "outside.png"
    outside.write_bytes(PNG)
    (tmp_path / "link.png").symlink_to(server.root / "a.png")
    (server.root / "leaves.png").symlink_to(outside)
    (tmp_path / "root link").symlink_to(server.root)
    monkeypatch.chdir(server.root)
    assert media_url("a.png", "image", server=server) == f"{SERVER_URL}/a.png"
    assert media_url("../link.png", "image", server=server) == f"{SERVER_URL}/a.png"
    assert media_url("a.png", "image", server=MediaServer(tmp_path / "root link", SERVER_URL)) == f"{SERVER_URL}/a.png"
    assert media_url("leaves.png", "image", server=server).startswith("data:")
    assert media_url("../outside.png", "image", server=server).startswith("data:")


@pytest.mark.parametrize("name", [".a.png", ".hidden/a.png", "..a.png", "back\\slash.png"])
def test_files_that_the_server_hides_are_sent(server: MediaServer, name: str) -> None:
    path = server.root / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(PNG)
    assert media_url(path, "image", server=server).startswith("data:image/png;")


def test_a_neighbour_whose_name_begins_like_the_root_is_outside(tmp_path: Path, server: MediaServer) -> None:
    path = tmp_path / f"{server.root.name}2" / "a.png"
    path.parent.mkdir()
    path.write_bytes(PNG)
    assert media_url(path, "image", server=server).startswith("data:")


def test_what_lies_under_the_root_is_checked_all_the_same(server: MediaServer) -> None:
    (server.root / "a.png").write_text("no image")
    with pytest.raises(MediaError) as caught:
        media_url(server.root / "a.png", "image", server=server)
    assert caught.value.code == "wrong-media"


def test_a_file_with_a_colon_in_its_name_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data:a.png").write_bytes(PNG)
    monkeypatch.chdir(tmp_path)
    assert media_url("data:a.png", "image").startswith("data:image/png;base64,")


def test_messages(tmp_path: Path) -> None:
    image = media_part("http://h/a.png", "image")
    video = media_part("http://h/b.mp4", "video")
    assert image == {"type": "image_url", "image_url": {"url": "http://h/a.png"}}
    assert video == {"type": "video_url", "video_url": {"url": "http://h/b.mp4"}}
    assert user_message("what is this", [image, video])["content"] == [image, video, {"type": "text", "text": "what is this"}]
    assert user_message("hello") == {"role": "user", "content": "hello"}
    assert [system_message("s")["role"], assistant_message("a")["role"]] == ["system", "assistant"]
