from __future__ import annotations

import hmac
import os
import shlex
from pathlib import Path

import pytest

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.gate.keys import KeyRing, read_keys

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
