"""Files that others read while we write them, on disks that are full, in folders that are none."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside.files import append_json, make_folder, read_json, remove_torn, write_json, write_text

WRITES = 300

WRITER = """
import sys
from pathlib import Path
from qwen_fp8_ops.outside.files import append_json
for n in range(200):
    append_json(Path(sys.argv[1]), {'who': sys.argv[2], 'n': n, 'x': 'y' * 3000})
"""

LITTLE_ROOM = """
import resource, sys
from pathlib import Path
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside.files import append_json, write_json
resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
path = Path(sys.argv[1])
for number in range(1000):
    try:
        {write}
    except OpsError as error:
        print(error.message)
        break
"""


def room_ends(write: str, path: Path) -> str:
    done = subprocess.run([sys.executable, "-c", LITTLE_ROOM.format(write=write), str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 64 KiB that has no byte left."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no disk of our own here: {mounted.stderr.strip()}")
    try:
        write_json(disk / "state.json", {"state": "old"})
        with pytest.raises(OSError, match="No space left"):
            (disk / "filler").write_bytes(b"x" * (1 << 20))
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_readers_see_the_old_value_or_the_new_one_and_never_half(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_json(path, {"number": 0, "filler": ""})
    seen: list[int] = []
    faults: list[object] = []
    finished = threading.Event()

    def read() -> None:
        while not finished.is_set():
            try:
                value = read_json(path)
            except OpsError as error:
                faults.append(error)
                return
            if value is None or value["filler"] != "x" * (value["number"] % 7 * 5000):
                faults.append(value)
                return
            seen.append(value["number"])

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(WRITES):
        write_json(path, {"number": number, "filler": "x" * (number % 7 * 5000)})
    finished.set()
    for reader in readers:
        reader.join()
    assert faults == []
    assert len(set(seen)) > 1
    assert read_json(path)["number"] == WRITES - 1  # type: ignore[index]
    assert os.listdir(tmp_path) == ["state.json"]


def test_lines_of_several_writers_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number)]) for number in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {who: [line["n"] for line in lines if line["who"] == who] for who in "012"} == {who: list(range(200)) for who in "012"}


def test_a_full_disk_is_told_and_the_old_file_stays(full_disk: Path) -> None:
    with pytest.raises(OpsError, match=r"Cannot write .*state\.json: No space left on device") as caught:
        write_json(full_disk / "state.json", {"state": "new", "filler": "x" * 5000})
    assert caught.value.code == "cannot-write"
    assert f"df -h {full_disk}" in caught.value.fix
    assert read_json(full_disk / "state.json") == {"state": "old"}
    assert sorted(os.listdir(full_disk)) == ["filler", "state.json"]
    with pytest.raises(OpsError, match="No space left on device"):
        append_json(full_disk / "events.jsonl", {"event": "x"})


def test_a_file_that_may_not_grow_is_told_and_the_old_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert room_ends("write_json(path, 'x' * number * 100)", path) == f"Cannot write {path}: File too large"
    assert read_json(path) == "x" * 300
    assert os.listdir(tmp_path) == ["state.json"]


def test_a_line_that_was_written_only_in_part_is_told(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert room_ends("append_json(path, 'x' * 87)", path) == f"Cannot write {path}: No space left on device"
    assert path.read_text().splitlines()[:4] == [json.dumps("x" * 87)] * 4


@pytest.mark.parametrize("name", ["not-there/file", "a-file/file", "a-folder", "x" * 300])
def test_a_place_that_takes_no_file_is_told_with_its_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "a-file").write_text("")
    (tmp_path / "a-folder").mkdir()
    path = tmp_path / name
    with pytest.raises(OpsError, match="Cannot write") as caught:
        write_text(path, "x")
    assert str(path) in caught.value.message
    assert sorted(os.listdir(tmp_path)) == ["a-file", "a-folder"]
    with pytest.raises(OpsError, match="Cannot write"):
        append_json(path, {})


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OpsError, match="Cannot write"):
        make_folder(tmp_path / "file")
    with pytest.raises(OpsError, match="Cannot write"):
        make_folder(tmp_path / "file" / "logs")
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_the_mode_is_there_from_the_first_byte_and_stays(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        for _ in range(2):
            write_text(tmp_path / "keys", "me:secret", mode=0o600)
            assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600
        write_text(tmp_path / "state", "x")
        assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o644
    finally:
        os.umask(old)


def test_a_secret_is_not_written_through_a_link_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("old")
    (tmp_path / "keys").symlink_to(tmp_path / "elsewhere")
    write_text(tmp_path / "keys", "secret", mode=0o600)
    assert (tmp_path / "elsewhere").read_text() == "old"
    assert not (tmp_path / "keys").is_symlink()


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1', b"\xff\xfe", b"nothing", b"[" * 100_000])
def test_a_damaged_file_is_told_with_the_way_out(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "it's.json"
    path.write_bytes(content)
    with pytest.raises(OpsError, match="is damaged") as caught:
        read_json(path)
    assert caught.value.code == "damaged-file"
    subprocess.run(["/bin/sh", "-c", caught.value.fix.removeprefix("Move it away: ")], check=True)
    assert read_json(path) is None


def test_a_folder_in_place_of_a_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(OpsError, match="cannot be read: Is a directory"):
        read_json(tmp_path)


def test_text_of_every_kind_comes_back(tmp_path: Path) -> None:
    value = {"ü": "日本\u2028\n\0", "n": [1, 2.5, None, True]}
    write_json(tmp_path / "x", value)
    assert read_json(tmp_path / "x") == value
    assert "日本" in (tmp_path / "x").read_text(encoding="utf-8")


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f".state.json.{dead.pid}", f".state.json.{os.getpid()}", ".hidden", "state.json", f"log.{dead.pid}"):
        (tmp_path / name).touch()
    remove_torn(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([f".state.json.{os.getpid()}", ".hidden", "state.json", f"log.{dead.pid}"])
    remove_torn(tmp_path / "gone")
