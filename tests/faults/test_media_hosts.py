"""Hosts that media is fetched from, and what they do.

``engine.py`` fetches by the gate's own rules, as vLLM does through the gate's connector; the real connector has tests of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.faults.load import End, Load, ask
from tests.faults.service import FaultyService
from tests.faults.table import Row
from tests.gate.hostile_server import HostileServer
from tests.waiting import wait_for

pytestmark = pytest.mark.faults

MIB = 1 << 20


@dataclass(frozen=True)
class Trick:
    """``says``: part of the reason that the client is given."""

    name: str
    url: Callable[[HostileServer, HostileServer, FaultyService], str]
    says: str


TRICKS = (
    Trick("hangs before it answers", lambda host, inside, service: host.url("/hang"), "did not send the media within"),
    Trick("hangs after the head", lambda host, inside, service: host.url("/hang-after-head"), "did not send the media within"),
    Trick("drips a byte now and then", lambda host, inside, service: host.url("/drip"), "did not send the media within"),
    Trick("redirects to the metadata service", lambda host, inside, service: host.url("/redirect?http://169.254.169.254/latest"), "redirect (302)"),
    Trick("redirects to loopback", lambda host, inside, service: host.url(f"/redirect?{inside.url()}"), "redirect (302)"),
    Trick("is the metadata service", lambda host, inside, service: "http://169.254.169.254/latest/meta-data", "link-local"),
    Trick("is loopback", lambda host, inside, service: inside.url(), "loopback"),
    Trick("is loopback in another spelling", lambda host, inside, service: f"http://2130706433:{inside.port}/", "loopback"),
    Trick("is the service itself", lambda host, inside, service: f"http://localhost:{service.port}/v1/models", "loopback"),
    Trick("gives 10 GB", lambda host, inside, service: host.url("/ten-gigabytes"), "larger than"),
    Trick("never ends", lambda host, inside, service: host.url("/endless"), "larger than"),
    Trick("says more than it gives", lambda host, inside, service: host.url("/says-more"), "broke off"),
    Trick("never ends its head", lambda host, inside, service: host.url("/endless-head"), ""),
    Trick("speaks no HTTP", lambda host, inside, service: host.url("/not-http"), "cannot be reached"),
)


@pytest.fixture
def hosts() -> Iterator[tuple[HostileServer, HostileServer]]:
    """One that the operator allows, and one inside that nobody may be sent to."""
    with HostileServer() as host, HostileServer("127.0.0.1") as inside:
        yield host, inside


@pytest.mark.sample
def test_every_trick_under_load(service: FaultyService, hosts: tuple[HostileServer, HostileServer], row: Row) -> None:
    row.fault, row.ended = f"{len(TRICKS)} tricks: {'; '.join(trick.name for trick in TRICKS)}", "400 with the reason for each, nothing lost"
    host, inside = hosts
    service.started(ALLOWED_MEDIA_DOMAINS="*,127.0.0.2")
    service.watch.look()
    with Load(service.port) as load:
        wait_for(lambda: load.whole > 4, "the load flows")
        with ThreadPoolExecutor(len(TRICKS)) as clients:  # at the same time: one that hangs keeps nobody waiting
            answers = list(clients.map(lambda trick: fetch(service, trick.url(host, inside, service)), TRICKS))
        for trick, (end, told) in zip(TRICKS, answers, strict=True):
            assert end is End.REFUSED, (trick, end, told)
            assert trick.says in json.loads(told)["error"]["message"], (trick, told)
        assert fetch(service, host.url("/ok"))[0] is End.WHOLE
        assert fetch(service, host.url("/says-less"))[0] is End.WHOLE, "what it said it would send is all that is taken"
    row.count(load)
    assert (load.told, load.silent) == (0, 0), load.garbled
    assert inside.connections == 0, "nobody was sent inside"
    assert host.sent_bytes < 200 * MIB
    assert service.status()["state"] == "ready"
    service.stop()
    assert service.left() == []


def fetch(service: FaultyService, url: str) -> tuple[End, str]:
    return ask(service.port, "media", content=[{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What?"}])
