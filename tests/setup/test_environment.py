"""Making .venv, also without ensurepip, and clearing what a killed pip left."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qwen_fp8_ops.errors import OpsError
from venv_setup import environment
from venv_setup.child import Outcome


def package(site: Path, name: str, record: str | None) -> Path:
    information = site / f"{name}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
    if record is not None:
        (information / "RECORD").write_text(record)
    return information


def test_half_written_packages_are_forgotten_and_whole_ones_kept(tmp_path: Path) -> None:
    whole = package(tmp_path, "whole", "whole/__init__.py,,\nwhole-1.0.dist-info/INSTALLER,sha256=x,4\n")
    unpacking = package(tmp_path, "unpacking", "unpacking/__init__.py,,\n")
    begun = package(tmp_path, "begun", None)
    moved_away = tmp_path / "~eplaced"
    moved_away.mkdir()
    code = tmp_path / "begun"
    code.mkdir()
    assert sorted(environment.heal(tmp_path)) == ["begun-1.0.dist-info", "unpacking-1.0.dist-info", "~eplaced"]
    assert whole.exists()
    assert code.exists()
    assert not any(path.exists() for path in (unpacking, begun, moved_away))


class Debian:
    """A Python whose ensurepip lies in another package; ``has_pip``: whether it has a pip of its own."""

    def __init__(self, venv: Path, *, has_pip: bool) -> None:
        self.venv, self.has_pip = venv, has_pip
        self.commands: list[tuple[str, ...]] = []

    def __call__(self, *argv: str) -> Outcome:
        self.commands.append(argv)
        match argv[1:]:
            case ("-c", "import ensurepip"):
                return Outcome(1, "ModuleNotFoundError: No module named 'ensurepip'")
            case ("-m", "venv", *options, folder):
                (Path(folder) / "bin").mkdir(parents=True, exist_ok=True)
                (Path(folder) / "bin/python").touch()
                return (
                    Outcome(0, "")
                    if "--without-pip" in options
                    else Outcome(1, "The virtual environment was not created successfully because ensurepip is not available.")
                )
            case ("-m", "pip", "--python", *_):
                return Outcome(0, "") if self.has_pip else Outcome(1, "No module named pip")
        return Outcome(1, f"unexpected: {argv}")


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], Debian]:
    def install(has_pip: bool) -> Debian:
        host = Debian(tmp_path / ".venv", has_pip=has_pip)
        monkeypatch.setattr(environment, "_quietly", host)
        return host

    return install


def test_without_ensurepip_the_pip_that_is_there_helps(debian: Callable[[bool], Debian]) -> None:
    host = debian(True)
    assert environment.make(host.venv, lambda text: None) == host.venv / "bin/python"
    assert host.commands[-1][:5] == (sys.executable, "-m", "pip", "--python", str(host.venv / "bin/python"))


def test_without_ensurepip_and_pip_the_package_to_install_is_named(debian: Callable[[bool], Debian]) -> None:
    host = debian(False)
    with pytest.raises(OpsError) as caught:
        environment.make(host.venv, lambda text: None)
    assert f"apt-get install python3.{sys.version_info.minor}-venv" in caught.value.fix


def test_a_working_one_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.touch()
    asked: list[tuple[str, ...]] = []

    def answer(*argv: str) -> Outcome:
        asked.append(argv)
        return Outcome(0, "pip 25")

    monkeypatch.setattr(environment, "_quietly", answer)
    assert environment.make(tmp_path, lambda text: None) == python
    assert asked == [(str(python), "-I", "-m", "pip", "--version")]
