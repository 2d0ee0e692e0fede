from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from qwen_fp8_ops.client.batch.images import ORIENTATION
from qwen_fp8_ops.client.batch.item import Item, Recipe, Source
from qwen_fp8_ops.client.batch.prepare import Sending, prepare
from qwen_fp8_ops.client.media_files import MediaError, MediaServer
from qwen_fp8_ops.client.media_types import Kind
from qwen_fp8_ops.errors import ConfigError
from tests.batch.scenery import RECIPE, make_images
from tests.media_files import make_video


def content(path: Path, kind: Kind = "image", *, sending: Sending | None = None, recipe: Recipe = RECIPE) -> Any:
    """The URL that is sent for it."""
    prepared = prepare(Item("a", "Look.", (Source(str(path), kind),)), recipe, sending or Sending())
    part = json.loads(prepared.body)["messages"][-1]["content"][0]
    return part[f"{kind}_url"]["url"]


@pytest.fixture
def server(tmp_path: Path) -> Sending:
    make_images(tmp_path / "media root", 1)
    return Sending(MediaServer(tmp_path / "media root", "http://127.0.0.1:8080"))


def test_what_the_media_server_offers_goes_by_name(tmp_path: Path, server: Sending) -> None:
    inside = tmp_path / "media root" / "0000.png"
    assert content(inside, sending=server) == "http://127.0.0.1:8080/0000.png"
    outside = make_images(tmp_path / "elsewhere", 1) / "0000.png"
    assert content(outside, sending=server) == f"data:image/png;base64,{base64.b64encode(outside.read_bytes()).decode()}"


def test_what_has_to_be_changed_goes_by_content(tmp_path: Path, server: Sending) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.new("RGB", (80, 40), "red").save(tmp_path / "media root" / "turned.jpg", exif=exif)
    assert content(tmp_path / "media root" / "turned.jpg", sending=server).startswith("data:image/jpeg;base64,")
    Image.new("RGB", (800, 400), "red").save(tmp_path / "media root" / "large.png")
    small = Recipe("caption", "m", "Look.", max_pixels=64 * 64)
    assert content(tmp_path / "media root" / "large.png", sending=server, recipe=small).startswith("data:image/png;base64,")


def test_a_video_goes_by_name_or_whole(tmp_path: Path, server: Sending) -> None:
    clip = make_video(tmp_path / "media root" / "clip.mp4")
    assert content(clip, "video", sending=server) == "http://127.0.0.1:8080/clip.mp4"
    assert content(clip, "video") == f"data:video/mp4;base64,{base64.b64encode(clip.read_bytes()).decode()}"
    first, again = (prepare(Item("a", "Look.", (Source(str(clip), "video"),)), RECIPE, Sending()).prints[0] for _ in range(2))
    assert first == again and len(first.sha256) == 64


def test_a_system_message_comes_first() -> None:
    prepared = prepare(Item("a", "Look."), Recipe("qa", "", "Look.", system="Be brief.", sampling={"top_p": None, "max_tokens": 3}), Sending())
    assert json.loads(prepared.body) == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Look."}],
        "stream": False,
        "max_tokens": 3,
    }


def test_a_request_that_is_too_large_is_not_sent(tmp_path: Path) -> None:
    path = make_images(tmp_path, 1, (200, 200)) / "0000.png"
    with pytest.raises(MediaError, match=r"the service takes 0\.0005 MB") as caught:
        content(path, sending=Sending(limit_bytes=500))
    assert caught.value.code == "too-large"


@pytest.mark.parametrize("name", ["", "nowhere.png", "a folder", "no\0name"])
def test_what_is_no_file_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / "a folder").mkdir()
    (tmp_path / "empty.png").touch()
    with pytest.raises(MediaError):
        prepare(Item("a", "Look.", (Source(f"{tmp_path}/{name}"),)), RECIPE, Sending())
    with pytest.raises(MediaError, match="is empty"):
        content(tmp_path / "empty.png")


def test_a_question_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(ConfigError):
        prepare(Item("a", "half \ud83d"), RECIPE, Sending())
