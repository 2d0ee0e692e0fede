"""What an index says of a release, in both its languages, and what is said when it cannot be asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dependency_audit.index import Index, Told, pip_settings
from tests.audit.site import FakeIndex
from tests.ports import free_port


@pytest.fixture(params=["json", "html"])
def fake(request: pytest.FixtureRequest) -> FakeIndex:
    index = FakeIndex(as_html=request.param == "html")
    for version in ("1.0", "1.5", "2.0"):
        index.release("tool", version)
    index.release("tool", "3.0rc1")
    index.release("tool", "4.0", requires_python=">=9")
    index.release("tool", "5.0", yanked="broken on <big> files & slow")
    index.release("tool", "6.0", tag="cp311-cp311-win_amd64")
    index.release("old", "1.0", yanked=True)
    index.release("half", "1.0", yanked=True)
    index.release("half", "1.0", tag="py2-none-any")
    return index


def ask(fake: FakeIndex, name: str, version: str) -> Told:
    with fake.running() as url:
        index = Index(url, python="3.11.9")
        try:
            return index.ask(name, version)
        finally:
            index.close()


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("1.0", Told(newest="2.0")),
        ("2.0", Told()),
        ("2.0+cpu", Told()),
        ("2.1", Told()),
        ("3.0b1", Told(newest="3.0rc1")),
        ("5.0", Told(yanked="broken on <big> files & slow")),
    ],
)
def test_newest_is_what_this_python_could_install_and_nobody_took_back(fake: FakeIndex, version: str, told: Told) -> None:
    assert ask(fake, "tool", version) == told


def test_a_release_is_taken_back_when_all_its_files_are(fake: FakeIndex) -> None:
    assert ask(fake, "old", "1.0").yanked == "no reason given"
    assert ask(fake, "half", "1.0").yanked is None


def test_what_the_index_does_not_know(fake: FakeIndex) -> None:
    assert ask(fake, "nobody", "1.0").problem == "the index answers 404"


def test_an_index_that_cannot_be_reached_is_asked_once_and_its_password_not_told() -> None:
    index = Index(f"http://alice:s3cret@127.0.0.1:{free_port()}/simple")
    first = index.ask("tool", "1.0")
    assert "cannot be asked" in first.problem and "s3cret" not in first.problem
    index.url = "http://[no-url"
    assert index.ask("other", "1.0").problem == first.problem
    index.close()


def test_the_index_is_the_one_that_pip_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_INDEX_URL", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = http://127.0.0.1:1/global\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    assert pip_settings(sys.executable)["index-url"] == "http://127.0.0.1:1/global"
    file.write_text("[global]\nindex-url = http://127.0.0.1:1/global\n[install]\nindex-url = http://127.0.0.1:1/install\n")
    assert pip_settings(sys.executable)["index-url"] == "http://127.0.0.1:1/install"
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/shell")
    monkeypatch.setenv("PIP_CERT", "/our/ca.pem")
    assert pip_settings(sys.executable) | {} == {**pip_settings(sys.executable), "index-url": "http://127.0.0.1:1/shell", "cert": "/our/ca.pem"}


def test_without_a_configuration_it_is_pips_own_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    default = pip_settings(sys.executable)["index-url"]
    assert default.startswith("https://") and default.endswith("/simple")
    said = subprocess.run([sys.executable, "-m", "pip", "install", "--help"], capture_output=True, text=True, timeout=120, check=True).stdout
    assert default in "".join(said.split())
