"""Hostile paths, sent as they are: never a byte from outside the root, never a hidden file, never a 500."""

from __future__ import annotations

import errno
import itertools
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen_fp8_ops.outside.jail import Jail, read_target

from .conftest import HIDDEN, SECRET, parse

if TYPE_CHECKING:
    from .conftest import MediaServer

UPS = [
    "..",
    "%2e%2e",
    ".%2e",
    "%2E.",
    "%252e%252e",
    "..%00",
    "..;",
    "%c0%ae%c0%ae",
    "%e0%80%ae%e0%80%ae",
    "..%c0%af",
    "....",
    "..%20",
    "%u002e%u002e",
    "..\\",
    "..%5c",
    "...",
    ". .",
    "\uff0e\uff0e",
]
SLASHES = ["/", "%2f", "%252f", "\\", "%5c", "//", "/./", "%c0%af", "/%2e/", "%2F", "%00/", "\u2215"]
GOALS = ["secret.txt", "outside/secret.txt", "outside/passwd", "etc/passwd"]


def corpus(folder: str) -> list[bytes]:
    found = [
        f"/{slash.join([up] * depth)}{slash}{goal}"
        for (up, slash), depth, goal in zip(itertools.product(UPS, SLASHES), itertools.cycle((1, 2, 9)), itertools.cycle(GOALS))
    ]
    found += [
        f"/{where}{slash}{up}{slash}{up}{slash}{GOALS[0]}"
        for where in ("sub", "sub/deep", "hello.txt", "absent", ".hidden")
        for slash in SLASHES[:4]
        for up in UPS[:6]
    ]
    found += [
        f"{lead}{folder}{goal}"
        for lead in ("", "/", "//", "///", "/%2f", "/sub//", "file://", "http://x", "http://x/", "/C:", "/proc/self/root", "/proc/self/cwd/..", "\\\\")
        for goal in ("/secret.txt", "/outside/secret.txt")
    ]
    found += [
        "/leak.txt",
        "/leak",
        "/leak/",
        "/leak/secret.txt",
        "/leak/../leak/secret.txt",
        "/leak2/secret.txt",
        "/sub/slash/etc/passwd",
        f"/sub/slash{folder}/secret.txt",
        "/loop",
        "/loop/x",
    ]
    found += [
        "/.env",
        "/%2eenv",
        "/.hidden/",
        "/.hidden/inner.txt",
        "/%2ehidden/inner.txt",
        "/sub/.git",
        "/inside-folder/.git",
        "/env-link.txt",
        "/./hello.txt",
        "/sub/./.git",
        "/sub/..%2f.env",
    ]
    found += [
        "/hello.txt%00",
        "/hello.txt%00.png",
        "/%00",
        "/leak.txt%00hello.txt",
        "/pipe.mp4",
        "/hello.txt/..",
        "/hello.txt/../secret.txt",
        "/" + "a" * 300,
        "/" + "a/" * 3000,
        "/" + "../" * 2000 + "etc/passwd",
    ]
    found += [
        "*",
        "",
        "secret.txt",
        "../secret.txt",
        "..",
        ".",
        "/..",
        "/.",
        "/../",
        "?/../secret.txt",
        "#/../../secret.txt",
        "/?../secret.txt#",
        "/%",
        "/%2",
        "/%zz",
        "/%2%2e/",
        "/..%",
        "/;/../secret.txt",
        "/~root/",
        "/~/.ssh/id_rsa",
    ]
    found += [
        "ftp://x/secret.txt",
        "http:",
        "http:/",
        "http://",
        "https://x/%2e%2e/secret.txt",
        "http://x/../secret.txt",
        "//x/../secret.txt",
        "javascript:alert(1)",
        "/dev/stdin",
        "/proc/self/environ",
        "/proc/self/fd/3",
        "/proc/self/fd/0",
    ]
    return list(dict.fromkeys(target.encode() for target in found))


def test_corpus_is_large_enough(tmp_path: Path) -> None:
    assert len(corpus(str(tmp_path))) >= 400


ALLOWED = {200, 301, 400, 404, 405, 413}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_corpus_never_leaks(server: MediaServer, method: str) -> None:
    folder = str(server.root.parent)
    for target in corpus(folder):
        raw = server.send_raw(method.encode() + b" " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        if not target:  # no target at all: the parser may or may not answer, but it must not serve
            assert not raw or parse(raw).status == 400
            continue
        reply = parse(raw)
        assert reply.status in ALLOWED, (target, raw[:200])
        for leaked in (SECRET, HIDDEN, b"root:", folder.encode(), b"Traceback", b"secret"):
            assert leaked not in raw, (target, raw[:400])
        if reply.status == 200:
            assert re.fullmatch(rb"(https?://[^/]*)?/*(\?.*|#.*|sub/.*)?|\?.*|/%", target) or reply.body in (b"", b"hello, world\n"), (target, raw[:400])
        if reply.status == 404:
            assert reply.body in (b"", b"404 Not Found\n"), "an absent and a forbidden file look alike"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(
        st.sampled_from([*UPS, *SLASHES, *GOALS, "sub", "leak", ".env", "deep", "slash", "hello.txt", "?", "#", "%", "\x7f"]), min_size=1, max_size=12
    )
)
def test_composed_paths_never_leak(server: MediaServer, parts: list[str]) -> None:
    raw = server.send_raw(b"GET /" + "".join(parts).encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert parse(raw).status in ALLOWED
    assert SECRET not in raw
    assert HIDDEN not in raw
    assert b"root:" not in raw


@given(st.binary(max_size=60))
def test_a_read_target_has_no_hidden_or_odd_part(target: bytes) -> None:
    path = read_target(target)
    if path is not None:
        assert not path.startswith("/")
        assert not any(name.startswith(".") for name in path.split("/"))
        assert "\0" not in path
        assert "\\" not in path


def test_a_link_that_changes_while_it_is_read_never_leads_out(tmp_path: Path) -> None:
    """One thread swaps a link between a file inside and one outside, as fast as it can."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "good.txt").write_bytes(b"good")
    (tmp_path / "secret.txt").write_bytes(SECRET)
    os.symlink("good.txt", root / "link.txt")
    stop = threading.Event()

    def swap() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            os.symlink(("good.txt", "../secret.txt")[number % 2], root / ".next")
            os.replace(root / ".next", root / "link.txt")

    swapper = threading.Thread(target=swap)
    swapper.start()
    jail, seen = Jail(root), {b"": 0, b"good": 0}
    try:
        for _ in range(20_000):
            found = jail.look("link.txt")
            content = b""
            if found is not None:
                with found:
                    descriptor = found.open()
                    content = os.read(descriptor, 100)
                    os.close(descriptor)
            seen[content] += 1  # a KeyError here is a leak
    finally:
        stop.set()
        swapper.join()
    assert all(seen.values()), f"both states were met: {seen}"


def test_the_root_may_be_a_link_and_stays_what_it_was(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "a.txt").touch()
    (tmp_path / "two" / "b.txt").touch()
    os.symlink("one", tmp_path / "root")
    jail = Jail(tmp_path / "root")
    os.unlink(tmp_path / "root")
    os.symlink("two", tmp_path / "root")
    found = jail.look("a.txt")
    assert found is not None
    with found:
        assert found.is_file
    assert jail.look("b.txt") is None


def test_a_root_under_a_hidden_folder_is_served(tmp_path: Path) -> None:
    root = tmp_path / ".cache" / "media"
    root.mkdir(parents=True)
    (root / "a.txt").touch()
    found = Jail(root).look("a.txt")
    assert found is not None
    with found:
        assert found.is_file


@pytest.mark.parametrize("call", ["readlink", "fstat"])
def test_a_file_server_that_fails_costs_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    (tmp_path / "a.txt").write_text("a")
    jail = Jail(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, lambda *what, **how: (_ for _ in ()).throw(OSError(errno.EIO, "the server does not answer")))
        for _ in range(50):
            with pytest.raises(OSError, match="does not answer"):
                jail.look("a.txt")
    assert len(os.listdir("/proc/self/fd")) == before
