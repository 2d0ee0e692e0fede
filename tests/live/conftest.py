from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.service import LiveService


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """One ready service for all tests that leave it ready."""
    service = LiveService(tmp_path_factory.mktemp("live"))
    service.start()
    yield service
    stopped = service.run("stop")
    service.close()
    assert stopped.returncode == 0, stopped.stderr
