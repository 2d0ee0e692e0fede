"""A stand-in service with a weight cache, on a machine without a GPU: the check that refuses that is overruled."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from qwen_fp8_ops.plan.launch import LaunchPlan
from qwen_fp8_ops.plan.program import Program
from tests.service.harness import HERE, StandInService

RANKS = 2


class WarmService(StandInService):
    """``trace`` tells in which order the programs began and ended."""

    def __init__(self, home: Path, **settings: Any) -> None:
        super().__init__(home, WEIGHT_CACHE="on", **settings)
        self.trace = home / "trace"

    def plan(self, **settings: Any) -> LaunchPlan:
        plan = super().plan(**settings)
        return replace(plan, programs=tuple(self._standing_in(program) for program in plan.programs))

    def _standing_in(self, program: Program) -> Program:
        if program.is_weight_cache:
            argv = (sys.executable, str(HERE / "standin_cache.py"), program.sockets, str(RANKS), str(self.behaviour_file), str(self.trace))
            return replace(program, argv=argv, ranks=RANKS)
        if program.is_engine:
            alone = (*program.argv, str(self.trace))
            return replace(program, argv=(*alone, str(self.paths.weight_sockets)), argv_alone=alone)
        return program

    def command(self, **settings: Any) -> list[str]:
        return [*super().command(**settings), "weight-cache"]

    def lives(self) -> list[str]:
        return self.trace.read_text().splitlines() if self.trace.exists() else []

    def recorded(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.paths.state.read_text()) if self.paths.state.exists() else {}
        return value

    def life(self, name: str) -> str:
        """Of a program, as state.json has it; empty before there is one."""
        programs = self.recorded().get("programs", [])
        return next((program["state"] for program in programs if program["name"] == name), "")

    def ranks(self) -> list[int]:
        """The pids of the cache's ranks."""
        leader = self.pid("weight-cache")
        return [entry["pid"] for entry in self.status()["processes"] if entry["role"] == "weight-cache" and entry["pid"] != leader]

    def traces_left(self, pids: list[int]) -> list[str]:
        counters = [name for name in os.listdir("/dev/shm") if any(name.startswith(f"torch_{pid}_") for pid in pids)]
        return counters + ([str(self.paths.weight_sockets)] if self.paths.weight_sockets.exists() else [])
