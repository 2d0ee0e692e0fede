from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.batch.quick_server import QuickServer, serving
from tests.batch.scenery import Captioner, make_images


@pytest.fixture
def server() -> Iterator[QuickServer]:
    with serving() as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN_FP8_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def captioner(tmp_path: Path, server: QuickServer, home: None) -> Captioner:
    return Captioner(make_images(tmp_path / "my images", 12), tmp_path / "the output", server.url)
