"""What a fetch may reach, and what a hostile host can do to it. 127.0.0.2 plays a permitted host, 127.0.0.1 what must not be reached."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_fp8_ops.errors import ConfigError
from qwen_fp8_ops.gate.fetch import FetchError, MediaFetcher
from qwen_fp8_ops.gate.fetch_addresses import Address, kind_of
from qwen_fp8_ops.gate.fetch_answer import Wanted
from qwen_fp8_ops.gate.fetch_rules import MediaRules, checked
from qwen_fp8_ops.gate.media_budget import MediaBudget
from qwen_fp8_ops.outside.media_health import PICTURE_PATH
from qwen_fp8_ops.outside.net import own_addresses
from tests.gate.hostile_server import HostileServer

OPEN = MediaRules(allowed=("*", "127.0.0.2"))
LIMIT = 1_000_000


@pytest.fixture
def host() -> Iterator[HostileServer]:
    with HostileServer() as server:
        yield server


@pytest.fixture
def internal() -> Iterator[HostileServer]:
    """What listens on this machine's loopback and trusts whoever reaches it."""
    with HostileServer("127.0.0.1") as server:
        yield server


def get(
    url: str,
    rules: MediaRules = OPEN,
    *,
    kind: str = "image",
    most_bytes: int = LIMIT,
    seconds: float = 60.0,
    own: frozenset[Address] = frozenset(),
    budget: MediaBudget | None = None,
) -> bytes:
    return asyncio.run(MediaFetcher(rules, lambda: own).fetch(url, Wanted(kind, most_bytes, seconds, budget or MediaBudget())))


def refusal(url: str, rules: MediaRules = OPEN, **wanted: Any) -> str:
    with pytest.raises(FetchError) as caught:
        get(url, rules, **wanted)
    return str(caught.value)


# Addresses ---------------------------------------------------------------------------------------------------------------------

LOOPBACK = [
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "localhost", "LOCALHOST", "0.0.0.0", "0",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "127.0.0.1.", "localhost.", "127\u30020\u30020\u30021", "[::1%lo]", "[::1%25lo]",
    "[64:ff9b::7f00:1]", "0177.0.0.0x1", "00", "127.0.0.1%00.good.example", "x:y@127.0.0.1", "good.example@localhost",
]  # fmt: skip


@pytest.mark.parametrize("spelling", LOOPBACK)
def test_no_spelling_of_loopback_is_connected_to(internal: HostileServer, spelling: str) -> None:
    message = refusal(f"http://{spelling}:{internal.port}/ok", seconds=30)
    assert internal.connections == 0
    assert "leads to an address that is" in message or "not known" in message or "cannot be read" in message


def test_the_same_server_is_reached_where_the_operator_names_it(internal: HostileServer) -> None:
    assert get(internal.url(), MediaRules(allowed=("127.0.0.0/8",))) == internal.body
    assert internal.connections == 1


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("10.1.2.3", "private"), ("172.31.0.1", "private"), ("192.168.1.1", "private"), ("100.100.100.200", "private"), ("[fd00:ec2::254]", "private"),
        ("169.254.169.254", "link-local"), ("168.63.129.16", "link-local"), ("[fe80::1]", "link-local"), ("224.0.0.1", "multicast"), ("[ff02::1]", "multicast"),
        ("0.0.0.0", "unspecified"), ("[::]", "unspecified"), ("[::1]", "loopback"), ("192.0.0.192", "reserved"), ("255.255.255.255", "reserved"),
        ("[::ffff:169.254.169.254]", "link-local"), ("[64:ff9b::a9fe:a9fe]", "link-local"), ("[2002:7f00:1::]", "loopback"), ("[::7f00:1]", "reserved"),
        ("2852039166", "link-local"), ("0xa9fea9fe", "link-local"), ("169.254.43518", "link-local"), ("[fec0::1]", "private"), ("[2001::1]", "reserved"),
        ("[::ffff:0:7f00:1]", "reserved"), ("[64:ff9b::7f00:1]", "loopback"), ("[64:ff9b:1::7f00:1]", "reserved"), ("[2001:0:7f00:1::]", "reserved"),
        ("[2002:6440:1::]", "private"), ("[fe80::1%lo]", "link-local"),
    ],
)  # fmt: skip
def test_what_is_not_public_is_refused_by_its_kind_and_never_shown(host: str, kind: str) -> None:
    message = refusal(f"http://{host}/latest/meta-data?secret=1")
    assert f"leads to an address that is {kind}," in message
    assert message.count(host.strip("[]")) == 1 and "secret" not in message


@pytest.mark.parametrize(
    "text", ["8.8.8.8", "1.1.1.1", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"]
)
def test_public_addresses_are_open(text: str) -> None:
    assert kind_of(ip_address(text)) == ""


@given(st.ip_addresses())
def test_whatever_python_thinks_no_public_address_has_no_kind(address: Address) -> None:
    closed = address.is_private or address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    if closed and not (address.version == 6 and address.ipv4_mapped):
        assert kind_of(address)


def test_an_address_of_this_machine_is_refused_though_it_is_public() -> None:
    own = frozenset({ip_address("8.8.8.8"), ip_address("2606:4700::1")})
    for spelling in ("8.8.8.8", "134744072", "[2606:4700::1]", "[::ffff:8.8.8.8]", "[64:ff9b::808:808]", "[2002:808:808::]"):
        assert "this machine's own" in refusal(f"http://{spelling}:8010/v1/models", own=own, seconds=5)
    assert {ip_address("127.0.0.1")} <= own_addresses()


def test_a_name_that_leads_inside_is_refused(internal: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, [["127.0.0.1"]])
    assert "pictures.example: it leads to an address that is loopback" in refusal(f"http://pictures.example:{internal.port}/ok")
    assert internal.connections == 0


def test_a_name_is_asked_for_once_so_that_its_second_answer_never_counts(host: HostileServer, internal: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, [["127.0.0.2"], ["127.0.0.1"], ["127.0.0.1"]])
    assert get(f"http://rebinds.example:{host.port}/ok") == host.body
    assert asked == ["rebinds.example"]
    assert f"Host: rebinds.example:{host.port}".encode() in host.seen[0]
    assert internal.connections == 0


def test_of_several_addresses_only_open_ones_are_tried(host: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, [["127.0.0.1", "10.0.0.1", "127.0.0.2"]])
    with HostileServer("127.0.0.1") as inside:
        assert get(f"http://both.example:{host.port}/ok") == host.body
        assert inside.connections == 0


def answers(monkeypatch: pytest.MonkeyPatch, script: list[list[str]]) -> list[str]:
    """A name server that changes its mind with each question; asked for an address itself it says that."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(name: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if not str(name).rstrip(".").endswith(".example"):
            return real(name, port, *rest, **more)
        asked.append(name)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in script[len(asked) - 1]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


# Hosts -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [(), ("good.example",), ("10.0.0.0/8",), ("127.0.0.3",)])
def test_a_host_that_is_not_allowed_is_not_even_looked_up(host: HostileServer, allowed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, [["127.0.0.2"]])
    for name in ("127.0.0.2", "evil.example", "good.example.evil.example"):
        assert "must be from one of the allowed domains" in refusal(f"http://{name}:{host.port}/ok", MediaRules(allowed=allowed))
    assert asked == [] and host.connections == 0


@pytest.mark.parametrize("spelling", ["good.example", "GOOD.example", "good.example.", "user:pw@good.example"])
def test_an_allowed_name_with_its_network(host: HostileServer, spelling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, [["127.0.0.2"]] * 2)
    assert get(f"http://{spelling}:{host.port}/ok", MediaRules(allowed=("Good.example", "127.0.0.2/32"))) == host.body


@pytest.mark.parametrize("spelling", ["b\u00fccher.example", "B\u00dcCHER.example", "xn--bcher-kva.example", "b\u00fccher\u3002example"])
@pytest.mark.parametrize("named", ["b\u00fccher.example", "xn--bcher-kva.example", "XN--BCHER-KVA.example"])
def test_a_name_in_other_letters_is_the_same_name(host: HostileServer, monkeypatch: pytest.MonkeyPatch, named: str, spelling: str) -> None:
    asked = answers(monkeypatch, [["127.0.0.2"]])
    assert get(f"http://{spelling}:{host.port}/ok", MediaRules(allowed=(named, "127.0.0.2"))) == host.body
    assert asked == ["xn--bcher-kva.example"]


@pytest.mark.parametrize(
    "url",
    ["http://good.example\\@evil.example/", "http://good.example@evil.example/", "http://evil.example#@good.example/", "http://evil.example?good.example"],
)
def test_a_url_that_looks_like_an_allowed_host_is_not_one(url: str) -> None:
    assert refusal(url, MediaRules(allowed=("good.example",))).startswith("evil.example: ")


def test_the_name_of_an_allowed_host_does_not_open_closed_addresses(internal: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, [["127.0.0.1"]])
    assert "loopback" in refusal(f"http://good.example:{internal.port}/ok", MediaRules(allowed=("good.example",)))


NO_URLS = [
    "", "picture.png", "/etc/passwd", "file:///etc/passwd", "ftp://127.0.0.2/x", "gopher://x/", "http://", "http:///x", "http://a:0/", "http://a:99999/", "http://a:b/",
    "http://[::1/", "http://a\r\nb/", "javascript:1", "http://\u2460.0.0.1/",
]  # fmt: skip


@pytest.mark.parametrize("url", NO_URLS)
def test_what_is_no_url_of_ours_is_refused_in_words(url: str) -> None:
    assert refusal(url).startswith("The media URL ")


@given(st.text(max_size=60))
def test_any_other_text_is_refused_in_words(text: str) -> None:
    assert refusal(f"http://{text}", MediaRules())


def test_a_network_that_is_none_is_told_to_the_operator() -> None:
    assert checked(["a.example", "10.0.0.0/8", "*", "fd00::/8"]) == ("a.example", "10.0.0.0/8", "*", "fd00::/8")
    for entry in ("10.0.0.1/8", "10.0.0.0/33", "300.0.0.0/8"):
        with pytest.raises(ConfigError, match=entry):
            checked([entry])


def test_rules_survive_the_file_they_are_told_in() -> None:
    rules = MediaRules(allowed=("*", "10.0.0.0/8"), server=("127.0.0.1",), server_port=8080, server_root="/srv/it's media", most_bytes=7)
    assert MediaRules.from_json(rules.as_json()) == rules
    for key, value in (
        ("allowed", "*"),
        ("server", [1]),
        ("server_port", "80"),
        ("server_port", True),
        ("server_root", None),
        ("most_bytes", 0),
        ("most_bytes", None),
    ):
        with pytest.raises(TypeError, match=key):
            MediaRules.from_json({**rules.as_json(), key: value})
    old = {key: value for key, value in rules.as_json().items() if key != "most_bytes"}
    assert MediaRules.from_json(old).most_bytes == 512_000_000


# A hostile host ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ok", "/ok?image/png", "/ok?IMAGE/JPEG;q=1", "/ok?application/octet-stream", "/until-closed"])
def test_a_good_answer(host: HostileServer, path: str) -> None:
    assert get(host.url(path)) == host.body


@pytest.mark.parametrize(
    ("location", "to"),
    [
        ("http://127.0.0.1:1/", " to 127.0.0.1"),
        ("http://169.254.169.254/latest", " to 169.254.169.254"),
        ("//elsewhere.example/x?token=s3cret", " to elsewhere.example"),
        ("/ok", " to 127.0.0.2"),
        ("http://x:y/", ""),
    ],
)
def test_a_redirect_is_told_of_and_not_followed(host: HostileServer, location: str, to: str) -> None:
    message = refusal(host.url(f"/redirect?{location}"))
    assert message == f"127.0.0.2: it answers with a redirect (302){to}, and redirects are not followed: send the URL it ends at."
    assert len(host.seen) == 1


@pytest.mark.parametrize("path", ["/endless", "/endless-chunks", "/ten-gigabytes"])
def test_a_body_without_end_stops_at_the_limit(host: HostileServer, path: str) -> None:
    assert f"larger than {LIMIT} bytes" in refusal(host.url(path))
    assert host.sent_bytes < 100 * LIMIT  # what the kernel's buffers took in, and no more


def test_the_limit_itself_may_be_sent(host: HostileServer) -> None:
    host.body = b"x" * 1000
    assert len(get(host.url(), most_bytes=1000)) == len(get(host.url("/until-closed"), most_bytes=1000)) == 1000
    assert "larger than 999 bytes" in refusal(host.url("/until-closed"), most_bytes=999)


@pytest.mark.parametrize("path", ["/ok", "/until-closed"])
def test_all_media_of_a_request_together_have_a_limit(host: HostileServer, path: str) -> None:
    host.body = b"x" * 400
    budget = MediaBudget(1000)
    assert [len(get(host.url(path), budget=budget)) for _ in range(2)] == [400, 400]
    said = "127.0.0.2: the media of this request are together larger than 1000 bytes (MAX_MEDIA_MB)."
    assert refusal(host.url(path), budget=budget) == said
    assert len(get(host.url(path), budget=MediaBudget(1000))) == 400, "another request has its own"


def test_a_length_above_what_is_left_is_refused_before_the_body_is_taken(host: HostileServer) -> None:
    host.body = b"x" * 400
    budget = MediaBudget(399)
    assert "together larger than 399 bytes" in refusal(host.url(), budget=budget)
    host.body = b"x" * 399
    assert len(get(host.url(), budget=budget)) == 399


def test_fetches_of_a_request_at_the_same_time_share_its_limit(host: HostileServer) -> None:
    host.body = b"x" * 400

    async def fetch_all() -> list[bytes | BaseException]:
        budget = MediaBudget(1000)
        fetches = [MediaFetcher(OPEN).fetch(host.url("/until-closed"), Wanted("image", LIMIT, 60.0, budget)) for _ in range(8)]
        return await asyncio.gather(*fetches, return_exceptions=True)

    found = asyncio.run(fetch_all())
    taken = [one for one in found if isinstance(one, bytes)]
    assert len(taken) <= 2 and len(found) == 8
    assert all("together larger than 1000 bytes" in str(one) for one in found if one not in taken)


def test_a_head_without_end_stops_too(host: HostileServer) -> None:
    assert "127.0.0.2: it cannot be reached" in refusal(host.url("/endless-head"))


def test_a_length_that_lies(host: HostileServer) -> None:
    assert "broke off after 9 bytes" in refusal(host.url("/says-more"))
    assert get(host.url("/says-less")) == host.body[:4]


@pytest.mark.parametrize("path", ["/hang", "/hang-after-head", "/drip"])
def test_a_host_that_hangs_is_left_after_the_time_for_the_whole_fetch(host: HostileServer, path: str) -> None:
    assert refusal(host.url(path), seconds=1.5) == "127.0.0.2: it did not send the media within 1.5 s."
    assert len(host.seen) == 1


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/missing?token=s3cret", "it answers 404"),
        ("/broken", "it answers 500"),
        ("/empty-answer", "it cannot be reached"),
        ("/not-http", "it cannot be reached"),
        ("/compressed", "compressed"),
    ],
)
def test_other_answers(host: HostileServer, path: str, said: str) -> None:
    message = refusal(host.url(path))
    assert message.startswith("127.0.0.2: ") and said in message
    assert "s3cret" not in message


@pytest.mark.parametrize("path", ["/flaky", "/flaky-connection"])
def test_a_host_that_fails_twice_is_asked_again(host: HostileServer, path: str) -> None:
    host.failures_left = 2
    assert get(host.url(path)) == host.body
    assert len(host.seen) == 3


@pytest.mark.parametrize(
    ("kind", "type", "taken"),
    [
        ("image", "text/html", False), ("image", "application/json", False), ("image", "video/mp4", False), ("image", "image/webp", True),
        ("video", "video/mp4", True), ("video", "image/gif", True), ("video", "text/plain", False), ("audio", "audio/wav", True), ("audio", "video/mp4", True),
        ("audio", "image/png", False), ("image", "%1b", False),
    ],
)  # fmt: skip
def test_a_type_that_is_not_of_the_kind(host: HostileServer, kind: str, type: str, taken: bool) -> None:
    if taken:
        assert get(host.url(f"/ok?{type}"), kind=kind) == host.body
    else:
        assert refusal(host.url(f"/ok?{type}"), kind=kind) == f"127.0.0.2: it sends {type!r}, which is no {kind}."


def test_nobody_listens(host: HostileServer) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.2", 0))
        assert "it cannot be reached" in refusal(f"http://127.0.0.2:{bound.getsockname()[1]}/")


def test_credentials_in_a_url_are_sent_and_never_told(host: HostileServer) -> None:
    url = host.url().replace("://", "://alice:s3cr%40t@")
    assert get(url) == host.body
    assert b"Authorization: Basic " + base64.b64encode(b"alice:s3cr@t") in host.seen[0]
    assert "s3cr" not in refusal(url.replace("/ok", "/missing"))


def test_a_proxy_of_the_environment_is_not_used(host: HostileServer, internal: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, internal.url("/"))
    assert get(host.url()) == host.body
    assert internal.connections == 0


# Our own media server ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("outside")
    root = tmp_path / "media"
    (root / "a folder").mkdir(parents=True)
    (root / "a folder" / "p\u00eache.png").write_bytes(b"pixels")
    (root / ".hidden").write_text("hidden")
    (root / "out").symlink_to(tmp_path / "secret")
    os.mkfifo(root / "pipe")
    return root


def ours(root: Path | str, port: int = 8080) -> MediaRules:
    return MediaRules(server=("127.0.0.1", "localhost"), server_port=port, server_root=str(root))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LocalHost."])
def test_a_file_of_our_media_server_is_read_where_it_lies(root: Path, host: str) -> None:
    assert get(f"http://{host}:8080/a%20folder/p%C3%AAche.png?v=1", ours(root)) == b"pixels"


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/.hidden", "/../secret", "/%2e%2e/secret", "/a%20folder/..%2f..%2fsecret", "/out", "/", "/a%20folder", "/a%20folder/", "/pipe", "/%00"],
)
def test_by_the_rules_of_the_media_server(root: Path, path: str) -> None:
    assert "file" in refusal(f"http://127.0.0.1:8080{path}", ours(root))


def test_the_limit_holds_for_files_too(root: Path) -> None:
    assert "larger than 5 bytes" in refusal("http://127.0.0.1:8080/a%20folder/p%C3%AAche.png", ours(root), most_bytes=5)


def test_the_limit_of_a_request_holds_for_files_too(root: Path) -> None:
    url, budget = "http://127.0.0.1:8080/a%20folder/p%C3%AAche.png", MediaBudget(15)
    assert get(url, ours(root), budget=budget) == get(url, ours(root), budget=budget) == b"pixels"
    assert "together larger than 15 bytes" in refusal(url, ours(root), budget=budget)


def test_the_servers_own_picture_is_asked_of_the_server_and_lies_in_no_folder(root: Path, internal: HostileServer) -> None:
    assert "404" in refusal(internal.url(PICTURE_PATH), ours(root, internal.port))
    assert internal.connections == 1
    assert "file" in refusal(internal.url("/picture.png"), ours(root, internal.port))
    assert internal.connections == 1


def test_another_port_of_this_machine_is_not_our_media_server(root: Path, internal: HostileServer) -> None:
    assert "allowed domains" in refusal(internal.url(), ours(root))
    assert internal.connections == 0


def test_a_media_server_on_another_machine_is_asked_wherever_it_is_but_sends_us_nowhere(internal: HostileServer) -> None:
    rules = ours("", internal.port)
    assert get(internal.url(), rules) == internal.body
    assert "redirect (302)" in refusal(internal.url("/redirect?http://127.0.0.1/"), rules)
