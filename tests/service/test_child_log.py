"""The log file of an attempt: with room for what will be said, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.plan.launch import make_plan
from qwen_fp8_ops.service.child import Child, _with_room


def test_a_file_with_room_begins_empty_and_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "service.log"
    with _with_room(path) as log:
        log.write(b"one\n")
        path.write_bytes(b"")  # as log_files.cut empties it
        log.write(b"two\n")
    assert path.read_bytes() == b"two\n"


def test_a_full_disk_is_found_before_the_program_is() -> None:
    with pytest.raises(OSError, match="No space left"):
        _with_room(Path("/dev/full"))


@pytest.mark.parametrize("served", [False, True])
def test_what_has_served_is_better_without_a_log_than_not_at_all(tmp_path: Path, served: bool) -> None:
    (tmp_path / "logs").write_text("a file is in the folder's way")
    child = Child(make_plan(load(profiles=["demo"]), RunPaths(tmp_path)).engines[0], was_ready=served)
    if not served:
        with pytest.raises(FileExistsError):
            child._new_log(Path(child.program.log))
        return
    with child._new_log(Path(child.program.log)) as log:
        assert log.name == "/dev/null"
    assert child.unlogged == "File exists"
