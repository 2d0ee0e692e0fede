"""What counts as an image of a folder, whatever its name, and what is told of the rest."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.client.batch.folder import Folder
from qwen_fp8_ops.client.batch.item import Item
from qwen_fp8_ops.errors import OpsError
from tests.batch.scenery import Captioner, call, make_images, told


def test_folders_within_folders(captioner: Captioner, capsys: pytest.CaptureFixture[str]) -> None:
    make_images(captioner.images / "b" / "deep", 2, (30, 30))
    make_images(captioner.images / ".hidden", 2)
    shutil.copy(captioner.images / "0000.png", captioner.images / "no ending")
    (captioner.images / "loop").symlink_to(captioner.images)
    odd = os.fsdecode(b"caf\xe9.png")
    shutil.copy(captioner.images / "0000.png", captioner.images / odd)
    assert told(capsys, *call(captioner, "--recursive", "--limit", "100"))[0] == 0
    assert list(captioner.captions) == [*(f"{number:04d}.png" for number in range(12)), "caf\\xe9.png", "no ending", "b/deep/0000.png", "b/deep/0001.png"]
    found = [item.id for item in Folder(captioner.images, "", True, ("b/*", "0003*"))]
    assert found == ["0003.png", "b/deep/0000.png", "b/deep/0001.png"]


def test_a_folder_of_links_to_folders_says_why_it_is_empty(captioner: Captioner, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "train").symlink_to(captioner.images)
    code, _, err = told(capsys, *call(captioner), "--dataset-path", str(tmp_path / "links"), "--recursive")
    assert (code, "Links to folders are not followed." in err) == (2, True)


def test_a_hint_to_the_subfolders(captioner: Captioner, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (captioner.images / "sub").mkdir()
    for path in captioner.images.glob("*.png"):
        path.rename(captioner.images / "sub" / path.name)
    assert "--recursive" in told(capsys, *call(captioner))[2]


def test_the_items_of_a_folder_are_found_as_they_are_needed(tmp_path: Path) -> None:
    make_images(tmp_path / "a", 2)
    make_images(tmp_path / "b", 1)
    items = iter(Folder(tmp_path, "Look.", recursive=True))
    assert next(items) == Item("a/0000.png", "Look.", next(iter(Folder(tmp_path / "a", ""))).media)
    assert [next(items).id, next(items).id] == ["a/0001.png", "b/0000.png"]
    with pytest.raises(OpsError, match="cannot be read"):
        next(iter(Folder(tmp_path / "nowhere", "Look.")))


def test_a_link_to_nothing_and_a_subfolder_that_cannot_be_read_fail_alone(
    captioner: Captioner, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (captioner.images / "0000 link.png").symlink_to("nowhere.png")
    (captioner.images / "0000 loop.png").symlink_to("0000 loop.png")
    (captioner.images / "0001 link.png").symlink_to("0001.png")
    (captioner.images / "a link that is no picture").symlink_to("nowhere")
    for name in ("before", "lost+found", "z"):
        make_images(captioner.images / name, 1)
    scandir = os.scandir

    def refusing(path: str) -> Any:  # root, who may run this, is refused nothing
        if path.endswith("lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    code, _, err = told(capsys, *call(captioner, "--recursive"))
    assert code == 1
    assert "3 failed (" in err
    problems = [json.loads(line) for line in captioner.file("_simple.problems.jsonl").read_text().splitlines()]
    assert [problem["id"] for problem in problems] == ["0000 link.png", "0000 loop.png", "lost+found/"]
    assert [*captioner.captions][-3:] == ["0011.png", "before/0000.png", "z/0000.png"]
    assert "0001 link.png" in captioner.captions


def test_names_that_are_no_text_and_names_that_are_long(captioner: Captioner, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    odd = Captioner(captioner.images.rename(tmp_path / os.fsdecode(b"caf\xe9")), tmp_path / os.fsdecode(b"out \xe9"), captioner.url)
    odd.images.joinpath("0000.png").rename(odd.images / ("x" * 251 + ".png"))
    for words in ([], ["--json"]):
        code, out, _ = told(capsys, *call(odd, *words))
        assert (code, "out \\xe9" in out or "out \\\\xe9" in out) == (0, True)
        out.encode()
    assert len(odd.captions) == 12
    assert told(capsys, *call(odd, "--name", "長" * 120, "--shard", "1/1000"))[0] == 0
