"""Which faults a run tries, and the table that it writes.

`make test` tries those that are marked `sample`; `make faults` (an expression that names the marker `faults`) tries them all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.service import FaultyService
from tests.faults.table import Row, render, write

ROWS = pytest.StashKey[list[Row]]()
PLAIN = pytest.StashKey[dict[str, float]]()
PASSED = pytest.StashKey[bool]()
HERE = Path(__file__).parent
TABLE_VARIABLE = "FAULTS_TABLE"
"""The folder that the table is written to; without it the table is only shown."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "faults" in config.option.markexpr:
        return
    spared = [item for item in items if HERE in item.path.parents and item.get_closest_marker("faults") and not item.get_closest_marker("sample")]
    items[:] = [item for item in items if item not in spared]
    if spared:
        config.hook.pytest_deselected(items=spared)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    report = yield
    if call.when == "call":
        item.stash[PASSED] = report.passed
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, [])
    if rows and "faults" in config.option.markexpr:
        terminalreporter.section("faults")
        terminalreporter.write(render(rows))
        if os.environ.get(TABLE_VARIABLE):
            text, data = write(rows, Path(os.environ[TABLE_VARIABLE]))
            terminalreporter.write_line(f"\nwritten to {text} and {data}")


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Iterator[Row]:
    """The row of this test; its kind is the first line of its file, its name the test's until the test gives a better one."""
    found = Row(str(request.module.__doc__).partition("\n")[0].rstrip("."), request.node.name.removeprefix("test_").replace("_", " "))
    yield found
    found.survived = request.node.stash.get(PASSED, False)
    request.config.stash.setdefault(ROWS, []).append(found)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[FaultyService]:
    """Not started yet; a folder name with a space and a quote, because users have such."""
    made = FaultyService(tmp_path / "it's a run")
    yield made
    made.close()


@pytest.fixture
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> float | None:
    """Seconds of a start without a fault: the quicker of two, because the first one of a session reads everything from the disk. None
    where no table is shown.
    """
    if "faults" not in request.config.option.markexpr:
        return None
    known = request.config.stash.setdefault(PLAIN, {})
    if "seconds" not in known:
        known["seconds"] = min(_plain_start(tmp_path_factory.mktemp("plain") / "run") for _ in range(2))
    return known["seconds"]


def _plain_start(home: Path) -> float:
    made = FaultyService(home)
    try:
        seconds = made.seconds_to_ready()
        made.stop()
        assert not made.left()
    finally:
        made.close()
    return seconds
