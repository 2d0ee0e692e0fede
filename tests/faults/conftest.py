"""Which faults a run tries, and the table that it writes.

`make test` tries those that are marked `sample`; `make faults` (an expression that names the marker `faults`) tries them all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.faults.service import FaultyService
from tests.faults.table import Row, render, write

PLAIN = pytest.StashKey[dict[str, float]]()
PROPERTY = "fault"
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


class Table:
    """Gathers the rows from the reports of the tests, which come from wherever they ran (pytest-xdist)."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.passed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)
        if report.when == "teardown":
            self.rows += [
                Row(**{**json.loads(str(value)), "survived": report.nodeid in self.passed}) for name, value in report.user_properties if name == PROPERTY
            ]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.rows:
            return
        terminalreporter.section("faults")
        terminalreporter.write(render(self.rows))
        if os.environ.get(TABLE_VARIABLE):
            text, data = write(self.rows, Path(os.environ[TABLE_VARIABLE]))
            terminalreporter.write_line(f"\nwritten to {text} and {data}")


def pytest_configure(config: pytest.Config) -> None:
    if "faults" in config.option.markexpr:
        config.pluginmanager.register(Table())


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Iterator[Row]:
    """The row of this test; its kind is the first line of its file, its name the test's until the test gives a better one."""
    found = Row(str(request.module.__doc__).partition("\n")[0].rstrip("."), request.node.name.removeprefix("test_").replace("_", " "))
    yield found
    request.node.user_properties.append((PROPERTY, json.dumps(asdict(found))))


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
