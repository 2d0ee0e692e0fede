from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.server import Hub as LocalHub
from tests.hub.server import serving


@pytest.fixture(scope="session")
def _hub_process() -> Iterator[LocalHub]:
    with serving() as hub:
        yield hub


@pytest.fixture
def local_hub(_hub_process: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A Hub with nothing in it; what this process asks of any Hub goes there, without the user's own token and proxy."""
    import huggingface_hub.constants as theirs

    _hub_process.clear()
    for key in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", _hub_process.url)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(theirs, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    yield _hub_process
    _hub_process.heal()
