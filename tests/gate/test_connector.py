"""vLLM's own ways of asking for media, through our connector: what it gives, and what a client is told when it gives nothing."""

from __future__ import annotations

import asyncio
import base64
import io
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.gate import CONNECTOR
from qwen_fp8_ops.gate.fetch import MediaFetcher
from qwen_fp8_ops.gate.fetch_rules import MediaRules
from qwen_fp8_ops.outside.torchvision_cure import cure_torchvision
from tests.gate.hostile_server import HostileServer
from tests.media_files import data_url, make_image, make_video

pytestmark = [pytest.mark.skipif(find_spec("vllm") is None, reason="needs vLLM: the cpu or gpu extra"), pytest.mark.filterwarnings("default")]

OPEN = MediaRules(allowed=("127.0.0.2",))
WAYS = ["fetch_image", "fetch_image_async", "fetch_video", "fetch_video_async"]


@pytest.fixture(scope="module")
def module() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cure_torchvision()
        return import_module("qwen_fp8_ops.gate.connector")


Make = Callable[..., Any]


@pytest.fixture
def connector(module: Any) -> Make:
    """A connector as vLLM makes it for one request, by its registry."""

    def make(rules: MediaRules = OPEN, **more: Any) -> Any:
        return module.theirs.MEDIA_CONNECTOR_REGISTRY.load(CONNECTOR, media_io_kwargs=None, fetcher=MediaFetcher(rules), **more)

    return make


@pytest.fixture
def host() -> Iterator[HostileServer]:
    with HostileServer() as server:
        yield server


def ask(connector: Any, way: str, url: str) -> Any:
    found = getattr(connector, way)(url)
    return asyncio.run(found) if way.endswith("_async") else found


def refusal(module: Any, connector: Any, way: str, url: str) -> str:
    """The message that a client gets; its status is 400."""
    with pytest.raises(module.exceptions.VLLMValidationError) as caught:
        ask(connector, way, url)
    answer = import_module("vllm.entrypoints.serve.exception_handling.error_response").create_error_response(caught.value)
    assert (answer.error.code, answer.error.type) == (400, "BadRequestError")
    return str(answer.error.message)


@pytest.mark.parametrize("way", WAYS)
def test_what_a_permitted_host_sends_is_decoded(connector: Make, host: HostileServer, tmp_path: Path, way: str) -> None:
    path = make_image(tmp_path / "p.png") if "image" in way else make_video(tmp_path / "f.mp4")
    host.body = path.read_bytes()
    for url in (host.url(), host.url().replace("http", "HTTP"), data_url(path)):
        found = ask(connector(), way, url)
        if "image" in way:
            assert found.size == (160, 120)
        else:
            frames, metadata = found
            assert frames.shape[1:] == (128, 128, 3) and metadata["total_num_frames"] == 8


@pytest.mark.parametrize("way", WAYS)
def test_a_closed_address_a_redirect_and_another_host_are_the_clients_fault(module: Any, connector: Make, host: HostileServer, way: str) -> None:
    with HostileServer("127.0.0.1") as inside:
        everything = MediaRules(allowed=("*", "127.0.0.2"))
        assert "127.1: it leads to an address that is loopback" in refusal(module, connector(everything), way, f"http://127.1:{inside.port}/ok?key=s3cret")
        assert "redirect (302) to 127.0.0.1" in refusal(module, connector(), way, host.url(f"/redirect?{inside.url()}"))
        assert "allowed domains" in refusal(module, connector(), way, inside.url())
        assert "text/html" in refusal(module, connector(), way, host.url("/ok?text/html"))
        assert inside.connections == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("body", [b"", b"no media at all", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, b"\0\0\0\x20ftypisom" + b"\0" * 50])
def test_bytes_that_are_no_media_are_the_clients_fault(module: Any, connector: Make, host: HostileServer, way: str, body: bytes) -> None:
    host.body = body
    for url in (host.url(), f"data:image/png;base64,{base64.b64encode(body).decode()}"):
        message = refusal(module, connector(), way, url)
        assert "cannot be read" in message and "0x" not in message


def test_a_picture_that_unfolds_without_end_is_the_clients_fault(module: Any, connector: Make, host: HostileServer) -> None:
    image = import_module("PIL.Image").new("1", (30_000, 30_000))
    file = io.BytesIO()
    image.save(file, "PNG")
    host.body = file.getvalue()
    assert len(host.body) < 1_000_000
    assert "cannot be read" in refusal(module, connector(), "fetch_image_async", host.url())


def test_the_engines_limit_on_size_holds(module: Any, connector: Make, host: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "1")
    assert "larger than 1048576 bytes" in refusal(module, connector(), "fetch_image_async", host.url("/endless"))


def test_the_messages_of_one_request_share_its_limit(module: Any, connector: Make, host: HostileServer, tmp_path: Path) -> None:
    host.body = make_image(tmp_path / "p.png").read_bytes()
    rules = MediaRules(allowed=("127.0.0.2",), most_bytes=2 * len(host.body))

    async def request(messages: int) -> list[Any]:
        """As the gate and vLLM treat one: a budget, a connector for each message, their media at the same time."""
        module.CURRENT.set(module.MediaBudget(rules.most_bytes))
        return await asyncio.gather(*(connector(rules).fetch_image_async(host.url()) for _ in range(messages)), return_exceptions=True)

    async def both() -> tuple[list[Any], list[Any]]:
        first, second = await asyncio.gather(request(3), request(2))
        return first, second

    first, second = asyncio.run(both())
    refused = [one for one in first if isinstance(one, module.exceptions.VLLMValidationError)]
    assert len(refused) == 1 and "MAX_MEDIA_MB" in str(refused[0])
    assert [picture.size for picture in second] == [(160, 120)] * 2


def test_the_engines_limit_on_time_is_for_all_tries_together(module: Any, connector: Make, host: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_IMAGE_FETCH_TIMEOUT", "1")
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "2")
    assert "within 2 s" in refusal(module, connector(), "fetch_image_async", host.url("/hang"))
    assert "within 2 s" in refusal(module, connector(), "fetch_image", host.url("/drip"))


def test_a_hanging_host_keeps_no_other_fetch_waiting(connector: Make, host: HostileServer, tmp_path: Path) -> None:
    host.body = make_image(tmp_path / "p.png").read_bytes()

    async def both() -> Any:
        hanging = [asyncio.create_task(connector().fetch_image_async(host.url("/hang"))) for _ in range(50)]
        while len(host.seen) < 50:  # noqa: ASYNC110 - the host is of another thread
            await asyncio.sleep(0.01)
        good = await connector().fetch_image_async(host.url())
        assert not any(task.done() for task in hanging)
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        return good

    assert asyncio.run(both()).size == (160, 120)


@pytest.mark.parametrize("way", WAYS)
def test_files_are_closed_unless_a_folder_is_opened(module: Any, connector: Make, tmp_path: Path, way: str) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    path = make_image(folder / "p.png") if "image" in way else make_video(folder / "f.mp4")
    secret = make_image(tmp_path / "secret.png")
    assert "data URL" in refusal(module, connector(), way, f"file://{path}")
    opened = connector(allowed_local_media_path=str(folder))
    assert ask(opened, way, f"file://{path}") is not None
    for url in (f"file://{secret}", f"file://{folder}/../secret.png"):
        assert "cannot be read" in refusal(module, opened, way, url)


@pytest.mark.parametrize("way", ["fetch_image", "fetch_image_async"])
def test_our_media_server_is_read_from_its_folder(module: Any, connector: Make, tmp_path: Path, way: str) -> None:
    make_image(tmp_path / "a picture.png")
    rules = MediaRules(server=("127.0.0.1",), server_port=8080, server_root=str(tmp_path))
    assert ask(connector(rules), way, "http://127.0.0.1:8080/a%20picture.png").size == (160, 120)
    assert "127.0.0.1: there is no such file" in refusal(module, connector(rules), way, "http://127.0.0.1:8080/b.png")


def test_the_rules_are_those_of_the_gates_configuration_as_it_is_now(module: Any, home: Any, host: HostileServer, tmp_path: Path) -> None:
    host.body = make_image(tmp_path / "p.png").read_bytes()

    def asked() -> Any:
        return module.GuardedMediaConnector(None).fetch_image(host.url())

    with pytest.raises(module.exceptions.VLLMValidationError, match="allowed domains"):
        asked()
    home.write(media=OPEN)
    assert asked().size == (160, 120)
    home.write_text("{ damaged")
    assert asked().size == (160, 120)
    home.write()
    assert asked().size == (160, 120)
    home.write(media=MediaRules())
    with pytest.raises(module.exceptions.VLLMValidationError, match="allowed domains"):
        asked()
