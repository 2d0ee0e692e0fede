"""A network and a Hub that fail: what heals, what is told, and that nothing wrong ever stands under a file's name."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_fp8_ops.errors import ExitCode, GaveUpError, OpsError
from qwen_fp8_ops.weights import manifest
from qwen_fp8_ops.weights.download import Result, download
from qwen_fp8_ops.weights.download_plan import Request
from qwen_fp8_ops.weights.fetch import part_path
from qwen_fp8_ops.weights.hub import Hub, hub_files
from qwen_fp8_ops.weights.hub_errors import HubError
from tests.hub.server import TOKEN
from tests.hub.server import Hub as LocalHub
from tests.ports import free_port
from tests.weights.test_download import Notes, content

REPO = "owner/name"
SHARD = "model.safetensors"
FILES: dict[str, bytes | Path] = {"config.json": b"{}", SHARD: os.urandom(400_000), "z.safetensors": os.urandom(1000)}
STORAGE = f"/storage/{REPO}/"
STORED = f"{SHARD}?"
"""The shard in the storage, whose addresses bear a signature; requests to the Hub itself have none."""


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    return Request(REPO, "main", tmp_path / "models")


def run(request: Request, hub: LocalHub, notes: Notes | None = None, *, quiet_seconds: float = 10.0, tries: int = 3) -> Result:
    return download(request, Hub(hub.url, quiet_seconds, (0.01,) * tries), notes or Notes())


def begins(hub: LocalHub) -> list[int]:
    """Where the requests for the shard began."""
    return [request.range_begin or 0 for request in hub.asked_for(STORAGE) if SHARD in request.path]


def test_a_dropped_connection_goes_on_at_the_byte_where_it_broke(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    local_hub.fail(STORAGE, drop_after=100_000, times=9)
    notes = Notes()
    run(request_, local_hub, notes)
    assert content(request_.folder) == FILES
    at = begins(local_hub)
    assert at == sorted(at) and len(set(at)) == len(at) > 1
    assert notes.fetched == sum(map(len, FILES.values()))  # type: ignore[arg-type]  # no byte came twice


def test_a_part_of_an_earlier_run_is_gone_on_with(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    local_hub.fail(STORED, drop_after=150_000, times=1)
    local_hub.fail(STORAGE, status=500)
    with pytest.raises(GaveUpError):
        run(request_, local_hub)
    local_hub.heal()
    local_hub.requests.clear()
    notes = Notes()
    run(request_, local_hub, notes)
    assert content(request_.folder) == FILES
    assert begins(local_hub)[0] >= 65_536
    assert notes.bytes[SHARD] == 400_000


def test_a_part_with_a_wrong_beginning_is_found_out(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    file = next(file for file in hub_files(REPO, "main") if file.name == SHARD)
    part = part_path(request_.folder, file)
    part.parent.mkdir(parents=True)
    part.write_bytes(b"\0" * 5000)
    notes = Notes()
    run(request_, local_hub, notes)
    assert content(request_.folder) == FILES
    assert begins(local_hub) == [5000, 0]
    assert notes.bytes[SHARD] == 400_000
    assert not any((request_.folder / ".download/aside").iterdir())


@pytest.mark.parametrize("size", [400_000, 400_001, 500_000])
def test_a_part_that_is_as_long_or_longer_is_found_out(local_hub: LocalHub, request_: Request, size: int) -> None:
    local_hub.add(REPO, FILES)
    file = next(file for file in hub_files(REPO, "main") if file.name == SHARD)
    part = part_path(request_.folder, file)
    part.parent.mkdir(parents=True)
    part.write_bytes(b"\0" * size)
    run(request_, local_hub)
    assert content(request_.folder) == FILES


def test_a_part_that_was_whole_needs_no_byte(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    file = next(file for file in hub_files(REPO, "main") if file.name == SHARD)
    part = part_path(request_.folder, file)
    part.parent.mkdir(parents=True)
    part.write_bytes(FILES[SHARD])  # type: ignore[arg-type]
    run(request_, local_hub)
    assert content(request_.folder) == FILES
    assert begins(local_hub) == []


def test_a_server_without_ranges_begins_anew(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    local_hub.fail(STORED, drop_after=150_000, times=2)
    local_hub.fail(STORAGE, no_ranges=True)
    notes = Notes()
    run(request_, local_hub, notes)
    assert content(request_.folder) == FILES
    assert notes.bytes[SHARD] == 400_000


def test_a_server_that_falls_silent_is_asked_again(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    fault = local_hub.fail(STORAGE, stall_after=100_000, times=1)
    notes = Notes()
    run(request_, local_hub, notes, quiet_seconds=2)  # long enough for a busy machine to get as far as the stall
    assert fault.stalled.is_set()
    assert content(request_.folder) == FILES


def test_wrong_bytes_of_the_right_length_are_fetched_again_once(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    local_hub.fail(STORED, wrong=True, times=1)
    notes = Notes()
    run(request_, local_hub, notes)
    assert content(request_.folder) == FILES
    assert begins(local_hub) == [0, 0]
    assert f"{SHARD} came with wrong content; fetching it once more" in notes.said
    assert notes.bytes[SHARD] == 400_000
    assert not any((request_.folder / ".download/aside").iterdir())


def test_wrong_bytes_twice_are_an_error_that_names_the_file_and_the_others_still_come(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    local_hub.fail(SHARD, wrong=True)
    with pytest.raises(OpsError, match=f"{SHARD} came twice with content that is not what the Hub says") as told:
        run(replace(request_, workers=1), local_hub)
    assert told.value.code == "wrong-content"
    assert content(request_.folder).keys() == {"config.json", "z.safetensors"}
    assert len(list((request_.folder / ".download/aside").iterdir())) == 2
    written = manifest.read(request_.folder)
    assert written and not written.complete and len(written.files) == 2


def test_a_small_file_is_checked_by_its_git_hash(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    local_hub.fail("config.json", wrong=True)
    with pytest.raises(OpsError, match=r"config\.json came twice"):
        run(request_, local_hub)


def test_a_file_that_is_shorter_at_the_hub_than_it_says(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    local_hub.fail(STORAGE, shorter=500)
    with pytest.raises(OpsError, match=r"2 files could not be brought: .*z\.safetensors") as told:
        run(request_, local_hub)
    assert told.value.code == "truncated"
    assert content(request_.folder).keys() == {"config.json"}


def test_500_heals(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    local_hub.fail("/api/", status=502, times=1)
    local_hub.fail("/resolve/", status=500, times=2)
    notes = Notes()
    run(request_, local_hub, notes)
    assert content(request_.folder) == FILES
    assert any("HTTP 502" in text and "trying again" in text for text in notes.said)


def test_500_for_good_gives_up(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    local_hub.fail("/api/", status=503)
    with pytest.raises(GaveUpError, match="trouble of its own \\(HTTP 503\\)") as told:
        run(request_, local_hub)
    assert told.value.exit_code == ExitCode.GAVE_UP
    assert len(local_hub.requests) == 4


def test_429_waits_as_long_as_the_hub_asks(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    local_hub.fail("/api/", status=429, headers={"Retry-After": "1"}, times=1)
    notes = Notes()
    run(request_, local_hub, notes)
    assert notes.said == ["The Hub answers too many requests (HTTP 429); it asks to wait 1 s; trying again in 1 s"]
    assert content(request_.folder) == FILES


def test_429_with_a_long_wait_is_told_at_once(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    local_hub.fail("/api/", status=429, headers={"Retry-After": "7200"})
    with pytest.raises(GaveUpError, match="it asks to wait 7200 s") as told:
        run(request_, local_hub)
    assert told.value.code == "too-many-requests"
    assert len(local_hub.requests) == 1


def test_storage_that_finds_the_signature_expired_gets_a_new_one(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    local_hub.fail(STORAGE, status=403, times=1)
    run(request_, local_hub)
    assert content(request_.folder) == FILES


@pytest.mark.parametrize(
    ("state", "code", "words"),
    [
        ("gated", "gated", "owner/name asks for its terms to be accepted"),
        ("private", "no-repository", "There is no repository owner/name, or it is private"),
        ("absent", "no-repository", "There is no repository owner/name, or it is private"),
        ("revision", "no-revision", "owner/name has no revision main"),
    ],
)
def test_refusals_are_told_at_once(local_hub: LocalHub, request_: Request, state: str, code: str, words: str) -> None:
    if state != "absent":
        local_hub.add(REPO, FILES, "other" if state == "revision" else "main")
    if state in ("gated", "private"):
        getattr(local_hub, state).add(REPO)
    notes = Notes()
    with pytest.raises(HubError, match=words) as told:
        run(replace(request_, workers=1), local_hub, notes)
    assert (told.value.code, told.value.exit_code) == (code, ExitCode.FAILED)
    assert told.value.fix
    assert not any("again" in text for text in notes.said)


def test_a_bad_token_is_told_and_never_shown(local_hub: LocalHub, request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    local_hub.add(REPO, FILES)
    monkeypatch.setenv("HF_TOKEN", "hf_wrongWrongWrong")
    with pytest.raises(HubError, match="does not accept the token of HF_TOKEN") as told:
        run(request_, local_hub)
    assert told.value.code == "bad-token"
    assert "Wrong" not in told.value.message + told.value.fix


def test_403_that_is_no_gate_tells_the_hubs_own_words(local_hub: LocalHub, request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    local_hub.add(REPO, FILES)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    local_hub.fail("/api/", status=403, headers={"X-Error-Message": "Your country is not served"})
    with pytest.raises(HubError, match="HTTP 403: Your country is not served"):
        run(request_, local_hub)


def test_a_pinned_commit_that_the_hub_lost_names_the_way_on(local_hub: LocalHub, request_: Request) -> None:
    local_hub.add(REPO, FILES)
    run(request_, local_hub)
    (request_.folder / "config.json").unlink()
    (request_.folder / ".download/listing.json").unlink()
    old = local_hub.repositories.pop(REPO)
    new = local_hub.add(REPO, {"config.json": b"rewritten"})
    assert new not in old.commits
    with pytest.raises(HubError, match="has no revision") as told:
        run(request_, local_hub)
    assert "--update" in told.value.fix


@pytest.fixture
def xet_hub(local_hub: LocalHub) -> LocalHub:
    """The weights lie in Xet storage, which the real hf-xet fetches from."""
    pytest.importorskip("hf_xet")
    local_hub.xet.add(REPO)
    local_hub.add(REPO, FILES)
    return local_hub


def test_weights_come_from_xet_storage(xet_hub: LocalHub, request_: Request) -> None:
    notes = Notes()
    run(request_, xet_hub, notes)
    assert content(request_.folder) == FILES
    assert notes.bytes[SHARD] == 400_000
    assert xet_hub.asked_for("/xet/chunks/") and not xet_hub.asked_for(STORAGE)


def test_a_part_goes_on_from_xet_storage(xet_hub: LocalHub, request_: Request) -> None:
    file = next(file for file in hub_files(REPO, "main") if file.name == SHARD)
    part = part_path(request_.folder, file)
    part.parent.mkdir(parents=True)
    part.write_bytes(FILES[SHARD][:150_001])  # type: ignore[index]
    run(request_, xet_hub)
    assert content(request_.folder) == FILES
    assert "bytes=150001-399999" in [request.headers.get("range") for request in xet_hub.asked_for("/reconstructions/")]


def test_wrong_bytes_from_xet_storage_are_fetched_again(xet_hub: LocalHub, request_: Request) -> None:
    xet_hub.add(REPO, {"config.json": b"{}", SHARD: FILES[SHARD]})
    part = part_path(request_.folder, next(file for file in hub_files(REPO, "main") if file.name == SHARD))
    part.parent.mkdir(parents=True)
    part.write_bytes(b"\0" * 100)
    notes = Notes()
    run(request_, xet_hub, notes)
    assert (request_.folder / SHARD).read_bytes() == FILES[SHARD]
    assert any("wrong content" in text for text in notes.said)


@pytest.mark.parametrize(("part", "status"), [("xet-read-token", 403), ("/reconstructions/", 404), ("/reconstructions/", 401), ("/xet/chunks/", 404)])
def test_a_network_without_xet_storage_takes_the_plain_way(xet_hub: LocalHub, request_: Request, part: str, status: int) -> None:
    xet_hub.fail(part, status=status)
    notes = Notes()
    run(replace(request_, workers=1), xet_hub, notes)
    assert content(request_.folder) == FILES
    assert len([text for text in notes.said if text.endswith("going on by plain HTTP")]) == 1
    assert not any("http://" in text for text in notes.said)
    assert notes.bytes[SHARD] == 400_000


def explained(endpoint: str) -> OpsError:
    with pytest.raises(OpsError) as told:
        Hub(endpoint, 2.0).commit(REPO, "main")
    return told.value


def test_nobody_listens() -> None:
    error = explained(f"http://127.0.0.1:{free_port()}")
    assert error.code == "no-hub"
    assert "127.0.0.1 cannot be reached" in error.message


def test_a_name_that_nobody_knows() -> None:
    error = explained("http://nowhere.invalid")
    assert error.code == "no-hub"
    assert "nowhere.invalid cannot be reached: its name cannot be resolved" in error.message


@pytest.mark.parametrize("endpoint", ["huggingface.co", "ftp://huggingface.co", "http://", "http://[::1"])
def test_an_endpoint_that_is_none(endpoint: str) -> None:
    error = explained(endpoint)
    assert error.code == "bad-endpoint"
    assert f"HF_ENDPOINT={endpoint}" in error.message


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Something that is no Hub: takes connections, reads a little, answers always the same, hangs up. Gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65_536)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def http(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize("body", [b"<html>Please log in</html>", b"[]", b"{}", b'{"sha": "main"}'])
def test_a_login_page_is_no_hub(body: bytes) -> None:
    with answering(http(body)) as port:
        error = explained(f"http://127.0.0.1:{port}")
    assert error.code == "no-hub"
    assert "does not answer as a Hub does" in error.message


def test_a_server_that_speaks_no_tls() -> None:
    with answering(b"HTTP/1.1 400 no\r\n\r\n") as port:
        error = explained(f"https://127.0.0.1:{port}")
    assert error.code == "tls"
    assert "The secure connection to 127.0.0.1 failed" in error.message


def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*make, "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, pytest.raises(ssl.SSLError):
                context.wrap_socket(connection, server_side=True)

        thread = threading.Thread(target=serve)
        thread.start()
        error = explained(f"https://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert error.code == "tls"
    assert "SSL_CERT_FILE" in error.fix


def test_a_proxy_that_refuses_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils import close_session  # type: ignore[attr-defined]

    with answering(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n") as port:
        for key in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(key, raising=False)
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:secret@127.0.0.1:{port}")
        close_session()
        try:
            error = explained("https://hub.example")
        finally:
            close_session()
    assert error.code == "proxy"
    assert f"The proxy 127.0.0.1:{port} refuses" in error.message
    assert "secret" not in error.message + error.fix
