from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.harness import StandInService


@pytest.fixture
def service(tmp_path: Path) -> Iterator[StandInService]:
    """Not started yet; a folder name with a space and a quote, because users have such."""
    stand_in = StandInService(tmp_path / "it's a run")
    yield stand_in
    stand_in.close()
