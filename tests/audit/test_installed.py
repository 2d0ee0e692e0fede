"""Who wants a distribution, and is it still what was installed?"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from dependency_audit.installed import Installed, incomplete_extras, read_installed, record_faults
from tests.audit.site import install
from venv_setup.project import Project

PROJECT = Project(Path(), "", ("tool>=1",), {"gpu": ("engine==1",), "ui": ("screen",)}, ())


def by_name(site: Path) -> dict[str, Installed]:
    return {one.name: one for one in read_installed(PROJECT, [str(site)], own_name="mine")}


def test_each_distribution_is_told_with_those_who_want_it(tmp_path: Path) -> None:
    install(tmp_path, "mine", "1")
    install(tmp_path, "tool", "1.5", requires=("Deep_Part", "not-here", "colour; extra == 'pretty'", "windows; sys_platform == 'win32'"))
    install(tmp_path, "deep-part", "2", requires=("tool",))
    install(tmp_path, "engine", "1", requires=("tool[pretty]",))
    install(tmp_path, "colour", "1")
    install(tmp_path, "windows", "1")
    install(tmp_path, "stranger", "1")
    found = by_name(tmp_path)
    assert {name: one.wanted_by for name, one in found.items()} == {
        "tool": ("core", "gpu"), "deep-part": ("core", "gpu"), "engine": ("gpu",), "colour": ("gpu",), "windows": (), "stranger": (),
    }  # fmt: skip
    assert incomplete_extras(PROJECT, found) == ["ui"]
    assert not any(one.faults for one in found.values())


@pytest.mark.parametrize(
    ("about", "licence"),
    [
        (("License-Expression: MIT", "License: the old way"), "MIT"),
        (("Classifier: License :: OSI Approved :: BSD License", "License: a long text"), "BSD License"),
        (("License: Apache 2.0",), "Apache 2.0"),
        ((), "unknown"),
    ],
)
def test_the_licence_is_what_the_package_says(tmp_path: Path, about: tuple[str, ...], licence: str) -> None:
    install(tmp_path, "tool", "1", about=about)
    assert by_name(tmp_path)["tool"].licence == licence


def test_a_changed_file_and_a_missing_one_are_told(tmp_path: Path) -> None:
    install(tmp_path, "tool", "1").write_text("import os  # planted\n")
    install(tmp_path, "engine", "1").unlink()
    found = by_name(tmp_path)
    assert found["tool"].faults == ("tool/__init__.py is not what was installed",)
    assert found["engine"].faults == ("engine/__init__.py is gone",)


def test_byte_code_that_python_wrote_anew_is_no_fault(tmp_path: Path) -> None:
    code = install(tmp_path, "tool", "1")
    cache = code.parent / "__pycache__"
    cache.mkdir()
    (cache / "__init__.cpython-311.pyc").write_bytes(b"new")
    record = tmp_path / "tool-1.dist-info/RECORD"
    record.write_text(record.read_text().replace(".pyc,,", ".pyc,sha256=old,3"))
    assert by_name(tmp_path)["tool"].faults == ()


def test_many_faults_are_counted_and_a_lost_record_is_one(tmp_path: Path) -> None:
    install(tmp_path, "tool", "1")
    record = tmp_path / "tool-1.dist-info/RECORD"
    record.write_text(record.read_text() + "".join(f"tool/{number}.py,sha256=x,1\n" for number in range(30)))
    assert by_name(tmp_path)["tool"].faults[-1] == "and 25 more"
    record.unlink()
    assert "RECORD" in by_name(tmp_path)["tool"].faults[0]


def test_a_hash_of_a_kind_that_does_not_exist_is_a_fault(tmp_path: Path) -> None:
    install(tmp_path, "tool", "1")
    record = tmp_path / "tool-1.dist-info/RECORD"
    record.write_text(record.read_text().replace("sha256=", "sha9="))
    assert "cannot be checked" in by_name(tmp_path)["tool"].faults[0]


def test_a_package_that_the_real_pip_installed_is_whole() -> None:
    assert record_faults(metadata.distribution("click")) == (), sys.executable
