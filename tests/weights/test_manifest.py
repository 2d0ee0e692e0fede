from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.weights import manifest
from qwen_fp8_ops.weights.manifest import Manifest, ManifestFile

SHA = "ab" * 32
COMMIT = "1" * 40


def sample(**changes: Any) -> Manifest:
    files = (ManifestFile("config.json", 2, SHA, 5, "c" * 40), ManifestFile("sub/model.safetensors", 7, SHA, 6))
    return Manifest(**{"repo": "owner/name", "revision": COMMIT, "requested": "main", "files": files, "complete": True, **changes})


def test_none_where_there_is_none(tmp_path: Path) -> None:
    assert manifest.read(tmp_path) is None


@pytest.mark.parametrize("changes", [{}, {"complete": False, "files": ()}, {"include": ("*.json",), "exclude": ("a b",)}, {"revision": ""}])
def test_what_is_written_is_read(tmp_path: Path, changes: dict[str, Any]) -> None:
    manifest.write(tmp_path, sample(**changes))
    assert manifest.read(tmp_path) == sample(**changes)
    assert os.listdir(tmp_path) == [manifest.FILE]


def test_a_partial_choice_is_known_as_such() -> None:
    assert sample(include=("*.json",)).partial
    assert sample(exclude=("*.bin",)).partial
    assert not sample().partial


def test_a_file_is_found_by_its_name() -> None:
    assert sample().file("config.json") == sample().files[0]
    assert sample().file("other") is None
    assert sample().bytes == 9


def damaged(**changes: Any) -> str:
    value = {"schema": 1, "repo": "o/n", "revision": COMMIT, "requested": "main", "complete": True, "files": []}
    return json.dumps({**value, **changes})


def entry(**changes: Any) -> dict[str, Any]:
    return {"name": "a", "bytes": 1, "sha256": SHA, "mtime_ns": 1, "git_blob": None, **changes}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "3",
        damaged(schema=2),
        damaged(files=None),
        damaged(files=["a"]),
        damaged(files=[entry(), entry()]),
        damaged(files=[entry(name="../../etc/passwd")]),
        damaged(files=[entry(name="/etc/passwd")]),
        damaged(files=[entry(name="")]),
        damaged(files=[entry(bytes="1")]),
        damaged(files=[entry(bytes=-1)]),
        damaged(files=[entry(bytes=True)]),
        damaged(files=[entry(mtime_ns=None)]),
        damaged(files=[entry(sha256="xyz")]),
        damaged(files=[entry(git_blob="xyz")]),
        damaged(revision="main"),
        damaged(complete="yes"),
    ],
)
def test_a_damaged_one_is_told_with_the_command_that_helps(tmp_path: Path, text: str) -> None:
    (tmp_path / manifest.FILE).write_text(text)
    with pytest.raises(OpsError) as told:
        manifest.read(tmp_path)
    assert told.value.code == "damaged-file"
    assert str(tmp_path / manifest.FILE) in told.value.message
    assert "mv" in told.value.fix


def test_the_words_of_the_error_name_the_file_and_the_value(tmp_path: Path) -> None:
    (tmp_path / manifest.FILE).write_text(damaged(files=[entry(name="model.safetensors", bytes=-4)]))
    with pytest.raises(OpsError, match=r"model\.safetensors has the size -4"):
        manifest.read(tmp_path)


def test_a_file_is_unchanged_until_it_is_written_to_or_gone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12")
    known = ManifestFile("a", 2, SHA, path.stat().st_mtime_ns)
    assert known.unchanged(tmp_path)
    os.utime(path, ns=(0, known.mtime_ns + 1))
    assert not known.unchanged(tmp_path)
    os.utime(path, ns=(0, known.mtime_ns))
    path.write_bytes(b"123")
    os.utime(path, ns=(0, known.mtime_ns))
    assert not known.unchanged(tmp_path)
    path.unlink()
    assert not known.unchanged(tmp_path)
    path.mkdir()
    assert not known.unchanged(tmp_path)
