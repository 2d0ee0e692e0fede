from __future__ import annotations

import hmac
import os
import shlex
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.gate import Gate
from qwen_fp8_ops.gate.keys import KeyRing, read_keys
from qwen_fp8_ops.gate.keys_file import SETTLE_SECONDS, KeysFile
from tests.waiting import wait_for

TEXT = "# people\n\nalice:first-secret\n  bob@lab.org:second:secret  \n"


def private(path: Path, text: str | bytes = TEXT) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_names_and_keys(tmp_path: Path) -> None:
    assert read_keys(private(tmp_path / "keys")) == {"alice": "first-secret", "bob@lab.org": "second:secret"}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610, 0o601])
def test_a_file_that_others_may_touch_is_refused_with_the_command_that_cures_it(tmp_path: Path, mode: int) -> None:
    path = private(tmp_path / "keys")
    path.chmod(mode)
    with pytest.raises(OpsError) as caught:
        read_keys(path)
    assert shlex.split(caught.value.fix) == ["chmod", "600", str(path)]


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_modes_that_keep_others_out_are_fine(tmp_path: Path, mode: int) -> None:
    path = private(tmp_path / "keys")
    path.chmod(mode)
    assert "alice" in read_keys(path)


def test_what_is_not_a_plain_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "missing", tmp_path, tmp_path / "pipe"):
        with pytest.raises(OpsError, match=path.name) as caught:
            read_keys(path)
        assert caught.value.fix


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("hunter2hunter2", 1), ("alice:first-secret\nbob", 2), (":nameless-secret", 1), ("alice:", 1), ("alice:short", 1), ("a b:hunter2hunter2", 1),
        ("alice:hunter2 hunter2", 1), ("alice:hunter2-h\u00fcnter2", 1), ("alice:first-secret\nalice:hunter2hunter2", 2), ("alice:hunter2hunter2\nbob:hunter2hunter2", 2),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_by_its_number_and_never_shown(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(OpsError, match=f"Line {line} of") as caught:
        read_keys(private(tmp_path / "keys", text))
    assert "hunter2" not in caught.value.message + caught.value.fix


def test_the_supervisors_name_is_its_own(tmp_path: Path) -> None:
    path = private(tmp_path / "keys", "alice:first-secret\nsupervisor:hunter2hunter2\n")
    with pytest.raises(OpsError, match=r"Line 2 of .* gives the name supervisor, which is the service's own") as caught:
        read_keys(path)
    assert "another name" in caught.value.fix
    assert "supervisor" in read_keys(path, own=True)


def test_binary_rubbish_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OpsError, match="UTF-8"):
        read_keys(private(tmp_path / "keys", b"\xff\xfe\x00"))


RING = KeyRing({"first-secret": "alice", "second:secret": "bob"})


@pytest.mark.parametrize(
    ("authorization", "api_key", "name"),
    [
        (b"Bearer first-secret", None, "alice"), (b"bearer  first-secret ", None, "alice"), (None, b"second:secret", "bob"), (b"Basic abc", b"second:secret", "bob"),
        (b"Bearer wrong", b"second:secret", "bob"), (b"Bearer first-secre", None, None), (b"Bearer first-secret1", None, None), (b"Bearer ", None, None),
        (b"first-secret", None, None), (b"Bearer", b"", None), (None, None, None), (b"Bearer \xff\x00", b"\xff", None), (b"Bearer FIRST-SECRET", None, None),
    ],
)  # fmt: skip
def test_where_a_key_may_be_put(authorization: bytes | None, api_key: bytes | None, name: str | None) -> None:
    assert RING.owner(authorization, api_key) == name


def test_every_key_is_compared_in_constant_time_wherever_the_right_one_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = KeyRing({f"secret-number-{number}": f"user{number}" for number in range(10)})
    lengths: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def counting(a: bytes, b: bytes) -> bool:
        lengths.append((len(a), len(b)))
        return compare(a, b)

    monkeypatch.setattr("qwen_fp8_ops.gate.keys.hmac.compare_digest", counting)
    for given, name in ((b"secret-number-0", "user0"), (b"secret-number-9", "user9"), (b"x", None)):
        lengths.clear()
        assert ring.owner(b"Bearer " + given, None) == name
        assert lengths == [(32, 32)] * 10


def test_an_empty_ring_opens_for_nobody() -> None:
    assert KeyRing({}).owner(b"Bearer ", b"") is None


# Rotation ----------------------------------------------------------------------------------------------------------------------


def put(path: Path, text: str | bytes, *, mode: int = 0o600) -> None:
    """A whole file in the place of another, as `mv` does it."""
    fresh = private(path.with_name("keys.new"), text)
    fresh.chmod(mode)
    fresh.replace(path)


def test_a_replaced_file_is_read_at_once_and_no_look_reads_twice(tmp_path: Path) -> None:
    path = private(tmp_path / "keys", "alice:first-secret\n")
    file = KeysFile(path)
    assert file.look(0.0)
    assert not file.look(99.0)
    put(path, "alice:other-secret\n")
    assert file.look(99.0)
    assert file.keys == {"alice": "other-secret"}
    put(path, "# the same, with a remark\nalice:other-secret\n")
    assert not file.look(100.0)


def test_a_file_that_is_being_written_in_place_is_read_when_it_keeps_still(tmp_path: Path) -> None:
    path = private(tmp_path / "keys", "alice:first-secret\nbob:second-secret\n")
    file = KeysFile(path)
    file.look(0.0)
    for moment, half in ((10.0, ""), (10.1, "alice:first-secret\n"), (10.2, "alice:first-secret\nbob:third-secret\n")):
        path.write_text(half)
        assert not file.look(moment)
        assert file.keys["bob"] == "second-secret"
    assert not file.look(10.2 + SETTLE_SECONDS / 2)
    assert file.look(10.2 + SETTLE_SECONDS)
    assert file.keys == {"alice": "first-secret", "bob": "third-secret"}


@pytest.mark.parametrize("damage", ["no line", "mode", "rubbish", "gone", "folder", "pipe"])
def test_a_damaged_file_leaves_the_old_keys_in_force_and_is_told_of_once(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    path = private(tmp_path / "keys", "alice:first-secret\n")
    file = KeysFile(path)
    file.look(0.0)
    if damage == "mode":
        put(path, "alice:other-secret\n", mode=0o640)
    elif damage in ("no line", "rubbish"):
        put(path, "bob other-secret\n" if damage == "no line" else b"\xff\xfe")
    else:
        path.unlink()
        if damage == "folder":
            path.mkdir()
        elif damage == "pipe":
            os.mkfifo(path, 0o600)
    assert not any(file.look(moment) for moment in (1.0, 2.0, 3.0, 4.0))
    assert file.keys == {"alice": "first-secret"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(path) in caplog.text and "stay in force" in caplog.text
    assert "secret" not in caplog.text
    if damage == "folder":
        path.rmdir()
    put(path, "alice:other-secret\n")
    assert file.look(5.0) and file.keys == {"alice": "other-secret"}


def test_an_emptied_file_opens_for_nobody(tmp_path: Path) -> None:
    path = private(tmp_path / "keys", "alice:first-secret\n")
    file = KeysFile(path)
    file.look(0.0)
    put(path, "# nobody\n")
    assert file.look(1.0) and file.keys == {}


def test_a_file_that_an_editor_has_just_made_anew_is_not_taken_for_an_emptied_one(tmp_path: Path) -> None:
    path = private(tmp_path / "keys", "alice:first-secret\n")
    file = KeysFile(path)
    file.look(0.0)
    path.rename(tmp_path / "keys~")
    private(path, "")
    assert not file.look(1.0) and file.keys == {"alice": "first-secret"}
    path.write_text("alice:first-secret\nbob:second-secret\n")
    assert file.look(1.1) and set(file.keys) == {"alice", "bob"}
    path.rename(tmp_path / "keys~")
    private(path, "")
    assert not file.look(2.0)
    assert file.look(2.0 + SETTLE_SECONDS) and file.keys == {}, "it was meant so"


def test_rotation_under_load_costs_no_request_of_a_key_that_did_not_change(home: Any, app: Any, serve: Callable[..., Any]) -> None:
    path = private(home.folder / "keys", "alice:alices-own-secret\nbob:bobs-secret-0\n")
    home.write(keys_files=(str(path),), keys_required=True)
    address = serve(Gate(app))
    done = threading.Event()
    seen: list[int] = []

    def client() -> None:
        while not done.is_set():
            seen.append(ask("alices-own-secret"))

    def ask(key: str) -> int:
        return int(address.ask("POST", "/v1/chat/completions", body=b"{}", headers={"X-API-Key": key}).status)

    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    try:
        for number in range(1, 4):
            text = f"bob:bobs-secret-{number}\n" + "# a long remark\n" * 5_000 + "alice:alices-own-secret\n"
            if number % 2:
                put(path, text)
            else:
                with path.open("w", buffering=64) as file:  # in place, in many small pieces
                    file.writelines(line + "\n" for line in text.splitlines())
            wait_for(lambda number=number: ask(f"bobs-secret-{number}") == 200, "the new key opens")  # type: ignore[misc]
            assert ask(f"bobs-secret-{number - 1}") == 401
    finally:
        done.set()
        for thread in clients:
            thread.join(60)
    assert set(seen) == {200} and len(seen) > 20
