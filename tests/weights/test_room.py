from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.weights import room
from qwen_fp8_ops.weights.room import Room, check_room, disk_words, existing, gigabytes


def test_the_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert existing(tmp_path / "a/b") == tmp_path
    found = os.statvfs(tmp_path)
    assert room.room(tmp_path / "a/b/c").free_bytes == pytest.approx(found.f_bavail * found.f_frsize, rel=0.2)


def test_enough_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "room", lambda folder: Room(100, 5))
    check_room(tmp_path, 100, 100, 5)
    with pytest.raises(OpsError):
        check_room(tmp_path, 101, 101, 5)
    with pytest.raises(OpsError):
        check_room(tmp_path, 100, 100, 6)


@pytest.mark.parametrize(
    ("number", "files", "code", "words"),
    [
        (errno.ENOSPC, None, "disk-full", "The disk is full"),
        (errno.ENOSPC, 7, "disk-full", "The disk is full"),
        (errno.ENOSPC, 0, "no-inodes", "The disk has no inodes left"),
        (errno.EDQUOT, None, "quota", "Your quota is used up"),
        (errno.EFBIG, None, "file-too-large", "is larger than a file may be here"),
        (errno.EACCES, None, "cannot-write", "Permission denied"),
        (errno.EROFS, None, "cannot-write", "Read-only file system"),
    ],
)
def test_each_refusal_has_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, files: int | None, code: str, words: str) -> None:
    monkeypatch.setattr(room, "room", lambda folder: Room(0, files))
    with pytest.raises(OpsError, match=words) as told, disk_words(tmp_path / "x/model.safetensors"):
        raise OSError(number, os.strerror(number))
    assert told.value.code == code
    assert str(tmp_path / "x/model.safetensors") in told.value.message
    assert told.value.fix


def test_other_errors_pass_unchanged(tmp_path: Path) -> None:
    error = OpsError("not of the disk", code="mine")
    with pytest.raises(OpsError) as told, disk_words(tmp_path):
        raise error
    assert told.value is error


@pytest.mark.parametrize(("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (237_570_000_000, "237.6 GB"), (2 * 10**12, "2.0 TB")])
def test_sizes_are_decimal_as_disks_count(count: int, text: str) -> None:
    assert gigabytes(count) == text
    assert re.fullmatch(r"[0-9.]+ (bytes|[kMGT]B)", text)
