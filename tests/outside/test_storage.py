from __future__ import annotations

import os
from pathlib import Path

import pytest

from qwen_fp8_ops.outside import storage
from qwen_fp8_ops.outside.storage import BLOCK_BYTES, Mount, mount_of, read_rate

TABLE = r"""
/dev/vda / ext4 rw,relatime 0 0
tmpfs /dev/shm tmpfs rw 0 0
node1@o2ib:/scratch /scratch lustre rw,flock 0 0
old:/scratch /scratch/archive nfs4 rw 0 0
server:/data /mnt/with\040space nfs rw 0 0
new /scratch/archive ext4 rw 0 0
broken
""".strip()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/x", ("/", "ext4")),
        ("/scratch", ("/scratch", "lustre")),
        ("/scratch/models/qwen", ("/scratch", "lustre")),
        ("/scratchpad/models", ("/", "ext4")),
        ("/scratch/archive/m", ("/scratch/archive", "ext4")),  # mounted over: the later one
        ("/mnt/with space/m", ("/mnt/with space", "nfs")),
    ],
)
def test_the_longest_prefix_wins(path: str, expected: tuple[str, str]) -> None:
    found = mount_of(Path(path), TABLE)
    assert found is not None
    assert (found.point, found.type) == expected


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to("/scratch/models")
    found = mount_of(tmp_path / "models" / "qwen", TABLE)
    assert found == Mount("node1@o2ib:/scratch", "/scratch", "lustre")


def test_no_table_and_this_machines_own() -> None:
    assert mount_of(Path("/x"), "") is None
    found = mount_of(Path("/proc/self"))
    assert found is not None
    assert found.type == "proc"


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(os.urandom(3 * BLOCK_BYTES + 1000))
    return path


def test_a_small_file_is_read_whole(shard: Path) -> None:
    found = read_rate(shard)
    assert found is not None
    assert found.bytes == shard.stat().st_size
    assert found.bytes_per_second == found.bytes / found.seconds > 0


def test_a_large_file_is_read_in_part_and_all_over(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(40 << 30)
    found = read_rate(path, limit_bytes=8 * BLOCK_BYTES)
    assert found is not None
    assert 4 * BLOCK_BYTES <= found.bytes <= 8 * BLOCK_BYTES
    offsets = storage._spread(40 << 30, 8 * BLOCK_BYTES)
    assert len(offsets) <= 8
    assert max(offsets) > 30 << 30
    assert all(offset % BLOCK_BYTES == 0 for offset in offsets)


def test_time_ends_the_read(shard: Path) -> None:
    assert read_rate(shard, limit_seconds=0) is None


@pytest.mark.parametrize("name", ["missing", "empty", "folder"])
def test_what_cannot_be_read_is_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    assert read_rate(tmp_path / name) is None


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a file system in memory")
def test_memory_is_not_taken_for_a_disk() -> None:
    """tmpfs keeps every page: whether it takes O_DIRECT depends on the kernel, where it does not the pages stay and are seen."""
    path = Path("/dev/shm") / f"qwen-fp8-test-{os.getpid()}"
    try:
        path.write_bytes(bytes(BLOCK_BYTES))
        direct = storage._opens_direct(path)
        found = read_rate(path)
        assert found is not None
        assert found.from_cache is (not direct)
    finally:
        path.unlink(missing_ok=True)


def test_pages_that_were_dropped_are_not_cached(shard: Path) -> None:
    descriptor = os.open(shard, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        assert storage._stays_cached(descriptor, shard.stat().st_size) in (False, None)
    finally:
        os.close(descriptor)
