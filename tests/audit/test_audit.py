"""The script as an operator runs it, and what pip-audit's words become."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dependency_audit.advisories import Advisory, read
from tests.audit.site import FakeIndex, install

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "audit_dependencies.py"

FOUND = """{"dependencies": [
 {"name": "idna", "version": "3.2", "vulns": [{"id": "PYSEC-2024-60", "fix_versions": ["3.7"], "aliases": ["CVE-2024-3651"]}]},
 {"name": "local-only", "skip_reason": "not found"}, {"name": "click", "version": "8.1", "vulns": []}], "fixes": []}"""
UNREACHED = """Traceback (most recent call last):
  File "x.py", line 1, in send
    raise ConnectionError(e, request=request)
requests.exceptions.ConnectionError: HTTPConnectionPool(host='127.0.0.1', port=9): Max retries exceeded
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    install(tmp_path, "click", "8.1", about=("License-Expression: BSD-3-Clause",))
    install(tmp_path, "stranger", "1")
    return tmp_path


def run(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), "--path", str(site), *words], capture_output=True, text=True, timeout=280, check=False)


def test_offline_it_judges_what_lies_here_and_says_what_it_could_not_ask(site: Path) -> None:
    done = run(site, "--offline", "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode, found["ok"]) == (0, True), done.stderr
    rows = {row["name"]: row for row in found["distributions"]}
    assert rows["click"]["wanted_by"] == ["core"] and rows["click"]["faults"] == [] and rows["stranger"]["wanted_by"] == []
    assert not found["index"]["asked"] and not found["advisories"]["asked"]
    assert "Vulnerabilities are not known" in done.stderr and "yanked releases are not known" in done.stderr


def test_a_planted_file_speaks_against_the_environment(site: Path) -> None:
    (site / "click/__init__.py").write_text("import os\n")
    done = run(site, "--offline")
    assert done.returncode == 1
    assert "click 8.1: click/__init__.py is not what was installed" in done.stderr
    assert "CHANGED" in done.stdout


def test_so_does_a_release_that_was_taken_back_and_a_newer_one_is_only_told(site: Path) -> None:
    fake = FakeIndex()
    fake.release("click", "8.1", yanked="by mistake")
    fake.release("click", "9")
    fake.release("stranger", "2")
    with fake.running() as url:
        asked = ("--index-url", url, "--advisories-url", "http://127.0.0.1:9/")
        only = run(site, *asked, "--only", "stranger")
        assert fake.asked == ["stranger"]
        every = run(site, *asked)
    assert (only.returncode, every.returncode) == (0, 1)
    assert "click 8.1 was taken back by its authors: by mistake" in every.stderr
    rows = {line.split()[0]: line.split()[1:] for line in every.stdout.splitlines()}
    assert rows["click"] == ["8.1", "YANKED", "core", "whole", "BSD-3-Clause"]
    assert rows["stranger"] == ["1", "2", "-", "whole", "unknown"]
    assert "Vulnerabilities are not known" in every.stderr


def test_what_pip_audit_found_is_taken_over() -> None:
    assert read(FOUND, "Found 1 known vulnerability in 1 package").found == (Advisory("idna", "3.2", "PYSEC-2024-60", ("CVE-2024-3651",), ("3.7",)),)


def test_a_service_that_does_not_answer_is_no_clean_bill() -> None:
    found = read("", UNREACHED)
    assert found.problem.startswith("the advisory service could not be asked: requests.exceptions.ConnectionError")
    assert not found.as_json()["asked"]
    assert read("", "").problem and read("[]", "").problem
