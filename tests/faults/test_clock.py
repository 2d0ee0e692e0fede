"""A wall clock that jumps.

Durations are measured by the monotonic clock: nothing is restarted, given up or refused because somebody set the time.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.plan.launch import LaunchPlan
from tests.faults.load import Load
from tests.faults.service import FaultyService
from tests.faults.table import Row
from tests.waiting import wait_for

pytestmark = pytest.mark.faults

SKEWED = Path(__file__).with_name("skewed.py")
YEAR = 365 * 86_400.0


class SkewedService(FaultyService):
    """Supervisor, API server and gate see the moved clock."""

    @property
    def offset_file(self) -> Path:
        return self.paths.home / "offset"

    def set_clock(self, offset: float) -> None:
        fresh = self.offset_file.with_suffix(".new")
        fresh.write_text(str(offset))
        fresh.rename(self.offset_file)

    def plan(self, **settings: Any) -> LaunchPlan:
        plan = super().plan(**settings)
        return replace(plan, programs=tuple(replace(program, argv=self.skewed(program.argv)) if program.is_engine else program for program in plan.programs))

    def command(self, **settings: Any) -> list[str]:
        return list(self.skewed(tuple(super().command(**settings))))

    def skewed(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        return (sys.executable, str(SKEWED), str(self.offset_file), *argv[1:])


@pytest.mark.parametrize(
    ("words", "offset"), [("ten years ahead", 10 * YEAR), ("a day back", -86_400.0), ("fifty years back", -50 * YEAR)], ids=["ahead", "back", "far_back"]
)
def test_the_clock_jumps(tmp_path: Path, row: Row, words: str, offset: float) -> None:
    row.fault, row.ended = f"the clock jumps {words}, under load", "ready all the time; restarts and stops as ever"
    service = SkewedService(tmp_path / "run", RATE_LIMIT=100_000)
    service.set_clock(0)
    try:
        service.started()
        service.watch.look()
        with Load(service.port) as load:
            wait_for(lambda: load.whole > 4, "the load flows")
            service.set_clock(offset)
            answered = load.whole
            wait_for(lambda: load.whole > answered + 40, "the load flows on")
        row.count(load)
        asked = service.asked()
        wait_for(lambda: service.asked() >= asked + 12, "it was probed some times")
        assert (load.told, load.silent) == (0, 0)
        assert not service.events("program-failing") and not service.events("program-died")
        status = service.status()
        assert status["state"] == "ready"
        core = service.core()
        os.kill(service.victim("API server"), signal.SIGKILL)
        wait_for(lambda: service.core() not in (0, core), "it is started again as ever")
        service.wait_answers()
        service.watch.look()
        service.stop()
        assert service.left() == []
    finally:
        service.close()
