"""A client with a key and a hostile media host against the real engine: each attempt is a 400 that says why, and the engine goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.gate.hostile_server import HostileServer
from tests.live.service import LiveService
from tests.media_files import make_image, make_video
from tests.waiting import wait_for

pytestmark = pytest.mark.engine

OLD, NEW = "alices-first-secret", "alices-second-secret"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """Any public host may be asked, and 127.0.0.2, which plays one; keys are needed."""
    service = LiveService(tmp_path_factory.mktemp("guarded"))
    write_keys(service, OLD)
    service.env |= {"QWEN_FP8_ALLOWED_MEDIA_DOMAINS": "*,127.0.0.2", "QWEN_FP8_API_KEYS_FILE": "api_keys"}
    service.start()
    yield service
    service.close()


@pytest.fixture
def host() -> Iterator[HostileServer]:
    with HostileServer() as server:
        yield server


def write_keys(service: LiveService, key: str) -> None:
    fresh = service.home / "api_keys.new"
    fresh.touch(mode=0o600)
    fresh.write_text(f"alice:{key}\n")
    fresh.rename(service.home / "api_keys")


def part(kind: str, url: str) -> dict[str, Any]:
    return {"type": f"{kind}_url", f"{kind}_url": {"url": url}}


def ask(service: LiveService, kind: str, url: str) -> tuple[int, str]:
    answer = service.chat([part(kind, url), {"type": "text", "text": "What?"}], key=OLD, max_tokens=4)
    return answer.status_code, answer.text


@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_permitted_host_is_asked_and_a_hostile_one_is_a_400(guarded: LiveService, host: HostileServer, kind: str) -> None:
    make = make_image if kind == "image" else make_video
    host.body = make(guarded.home / {"image": "p.png", "video": "f.mp4"}[kind]).read_bytes()
    assert ask(guarded, kind, host.url())[0] == 200
    with HostileServer("127.0.0.1") as inside:
        for url, reason in (
            (inside.url("/ok?token=s3cret"), "address that is loopback"),
            (f"http://2130706433:{inside.port}/", "address that is loopback"),
            (f"http://[::ffff:127.0.0.1]:{inside.port}/", "address that is loopback"),
            ("http://169.254.169.254/latest/meta-data", "address that is link-local"),
            (f"{guarded.url}/v1/models", "address that is loopback"),
            (host.url(f"/redirect?{inside.url()}"), "redirect (302)"),
            (host.url("/ten-gigabytes"), "larger than"),
            (host.url("/says-more"), "broke off"),
            (host.url("/ok?text/html"), "text/html"),
            (host.url("/missing"), "404"),
            (f"{guarded.media_url}/nothing.png", "no such file"),
            ("file:///etc/hostname", "data URL"),
            ("data:image/png;base64,AAAA", "cannot be read"),
        ):
            status, text = ask(guarded, kind, url)
            assert status == 400 and reason in text, (url, status, text)
            assert "s3cret" not in text
        assert inside.connections == 0
    assert ask(guarded, kind, host.url())[0] == 200
    assert [event["to"] for event in guarded.events("state")][-1] == "ready"


def test_keys_change_under_the_running_engine(guarded: LiveService) -> None:
    def allowed(key: str) -> int:
        return guarded.chat("Hi", key=key, max_tokens=1).status_code

    assert [allowed(OLD), allowed(NEW)] == [200, 401]
    pid = guarded.pid("engine0")
    write_keys(guarded, NEW)
    wait_for(lambda: allowed(NEW) == 200, "the new key opens")
    assert allowed(OLD) == 401
    write_keys(guarded, OLD)
    wait_for(lambda: allowed(OLD) == 200, "the old key opens again")
    assert guarded.pid("engine0") == pid
