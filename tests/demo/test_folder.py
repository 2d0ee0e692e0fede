"""The demo checkpoint's folder: whole or not at all, ours or not touched."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.weights.demo import ensure, is_current
from qwen_fp8_ops.weights.demo.recipe import LABEL, Recipe, read_label

Say = Callable[[str], None]


def write_two_files(folder: Path, say: Say) -> None:
    (folder / "config.json").write_text("{}")
    (folder / "weights").write_bytes(b"w" * 1000)
    say("written")


RECIPE = Recipe("test", 2, write_two_files)
OLDER = Recipe("test", 1, write_two_files)


def refuse_to_write(folder: Path, say: Say) -> None:
    raise AssertionError("nothing should have been built")


NOTHING_TO_DO = Recipe("test", 2, refuse_to_write)


def quiet(_: str) -> None:
    pass


def everything_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_missing_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    said: list[str] = []
    folder = tmp_path / "a folder's" / "demo"
    ensure(folder, said.append, RECIPE)
    assert everything_in(folder) == ["config.json", LABEL, "weights"]
    assert is_current(folder, RECIPE)
    assert said == ["written"]
    assert everything_in(folder.parent) == ["demo"]


def test_a_current_folder_is_left_alone(tmp_path: Path) -> None:
    ensure(tmp_path / "demo", quiet, RECIPE)
    ensure(tmp_path / "demo", quiet, NOTHING_TO_DO)


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    ensure(tmp_path / "demo", quiet, RECIPE)
    assert is_current(tmp_path / "demo", RECIPE)


def test_an_older_version_is_replaced(tmp_path: Path) -> None:
    ensure(tmp_path / "demo", quiet, OLDER)
    assert not is_current(tmp_path / "demo", RECIPE)
    ensure(tmp_path / "demo", quiet, RECIPE)
    assert is_current(tmp_path / "demo", RECIPE)
    assert everything_in(tmp_path) == ["demo"]


def test_another_recipe_is_replaced(tmp_path: Path) -> None:
    ensure(tmp_path / "demo", quiet, Recipe("trained", 2, write_two_files))
    ensure(tmp_path / "demo", quiet, RECIPE)
    label = read_label(tmp_path / "demo")
    assert label is not None
    assert label.recipe == "test"


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"short")])
def test_an_incomplete_folder_is_made_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = tmp_path / "demo"
    ensure(folder, quiet, RECIPE)
    damage(folder / "weights")
    assert not is_current(folder, RECIPE)
    ensure(folder, quiet, RECIPE)
    assert (folder / "weights").read_bytes() == b"w" * 1000
    assert everything_in(tmp_path) == ["demo"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "big disk").mkdir()
    (tmp_path / "demo").symlink_to(tmp_path / "big disk" / "cache")
    ensure(tmp_path / "demo", quiet, RECIPE)
    assert (tmp_path / "demo").is_symlink()
    assert is_current(tmp_path / "big disk" / "cache", RECIPE)


@pytest.mark.parametrize("label", [None, "", "not JSON", "[]", '{"recipe": "test"}', '{"recipe": "test", "version": 1, "files": ["thesis.tex"]}'])
def test_a_foreign_folder_is_refused_and_kept(tmp_path: Path, label: str | None) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    if label is not None:
        (folder / LABEL).write_text(label)
    before = everything_in(folder)
    with pytest.raises(OpsError) as refused:
        ensure(folder, quiet, RECIPE)
    assert refused.value.code == "not-ours"
    assert str(folder) in refused.value.message
    assert "mv" in refused.value.fix
    assert everything_in(folder) == before
    assert (folder / "thesis.tex").read_text() == "years of work"


def test_a_users_file_in_an_old_folder_of_ours_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    ensure(folder, quiet, OLDER)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OpsError, match=r"notes\.txt"):
        ensure(folder, quiet, RECIPE)
    assert (folder / "notes.txt").read_text() == "mine"
    assert is_current(folder, OLDER)


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("mine")
    with pytest.raises(OpsError, match="that is a file"):
        ensure(tmp_path / "demo", quiet, RECIPE)
    assert (tmp_path / "demo").read_text() == "mine"


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path, say: Say) -> None:
        write_two_files(folder, say)
        raise KeyboardInterrupt

    ensure(tmp_path / "demo", quiet, OLDER)
    with pytest.raises(KeyboardInterrupt):
        ensure(tmp_path / "demo", quiet, Recipe("test", 2, fail))
    assert everything_in(tmp_path) == ["demo"]
    assert is_current(tmp_path / "demo", OLDER)


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    def fill(folder: Path, say: Say) -> None:
        with open("/dev/full", "wb", buffering=0) as disk:
            disk.write(b"w")

    with pytest.raises(OpsError) as told:
        ensure(tmp_path / "demo", quiet, Recipe("test", 2, fill))
    assert told.value.code == "cannot-write"
    assert "No space left" in told.value.message
    assert everything_in(tmp_path) == []


def _build_until_killed(folder: Path, started: Path) -> None:
    def hang(work: Path, say: Say) -> None:
        write_two_files(work, say)
        started.touch()
        multiprocessing.Event().wait()

    ensure(folder, quiet, Recipe("test", 2, hang))


def test_a_killed_build_is_swept_and_a_running_one_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "demo"
    context = multiprocessing.get_context("spawn")
    killed, running = (context.Process(target=_build_until_killed, args=(folder, tmp_path / name)) for name in ("one", "two"))
    try:
        for builder, name in ((killed, "one"), (running, "two")):
            builder.start()
            wait_for(lambda name=name: (tmp_path / name).exists(), builder)  # type: ignore[misc]
        killed.kill()
        killed.join()
        assert len(everything_in(folder.parent)) == 2
        ensure(folder, quiet, RECIPE)
        assert is_current(folder, RECIPE)
        left = everything_in(folder.parent)
        assert len(left) == 2
        assert f"-{running.pid}-" in left[0]
    finally:
        for builder in (killed, running):
            builder.kill()
            builder.join()


def wait_for(event: Callable[[], bool], builder: multiprocessing.process.BaseProcess) -> None:
    while not event():
        builder.join(0.02)
        assert builder.exitcode is None, "the builder ended before it was ready"


def _build(folder: Path, version: int, gate: multiprocessing.synchronize.Barrier) -> None:
    def write(work: Path, say: Say) -> None:
        write_two_files(work, say)
        gate.wait(60)  # every builder has found the folder in need of a build before any puts its own in place

    ensure(folder, quiet, Recipe("test", version, write))
    assert is_current(folder, Recipe("test", version, write))


@pytest.mark.parametrize("older", [False, True])
def test_builds_at_once_all_end_with_a_good_folder(tmp_path: Path, older: bool) -> None:
    if older:
        ensure(tmp_path / "demo", quiet, OLDER)
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(3)
    builders = [context.Process(target=_build, args=(tmp_path / "demo", 2, gate)) for _ in range(3)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert [builder.exitcode for builder in builders] == [0, 0, 0]
    assert is_current(tmp_path / "demo", RECIPE)
    assert everything_in(tmp_path) == ["demo"]


def test_asking_and_importing_cost_nothing() -> None:
    heavy = "{'torch', 'transformers', 'tokenizers', 'safetensors', 'numpy', 'vllm'}"
    program = f"import sys; from qwen_fp8_ops.weights.demo import is_current, ensure; from pathlib import Path; is_current(Path('/nowhere')); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert done.stdout.strip() == "[]"
