"""The GPUs as `status --json` and `gpus --json` show them: one object a GPU, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from qwen_fp8_ops.engine.cuda import driver_problem
from qwen_fp8_ops.outside import gpus
from qwen_fp8_ops.outside.nvml import GpuSnapshot
from qwen_fp8_ops.outside.owner import owner_of
from qwen_fp8_ops.outside.packages import torch_build
from qwen_fp8_ops.plan.visible import visible
from qwen_fp8_ops.report.gpu_health import notes_of, problems_of
from qwen_fp8_ops.report.gpu_memory import GpuMemory, Holder, RankMemory, Ranks, compare, distribute, imbalance_percent

NOT_SHOWN = ("processes", "problems")
"""Fields of a GPU that the report tells with more to them."""


@dataclass(frozen=True)
class GpuReport:
    snapshot: GpuSnapshot
    spread: tuple[GpuMemory, ...]
    planned: Mapping[str, Any] | None
    torch_cuda: str | None

    @property
    def problems(self) -> list[dict[str, str]]:
        """Of the driver, and of the GPUs that are ours; somebody else's lost GPU is shown with them, and not for us to mend."""
        too_old = driver_problem(self.snapshot.driver_version, self.torch_cuda, runs=self.snapshot.cuda_version)
        of_driver = [{"code": "driver-cuda", "message": too_old[0], "fix": too_old[1]}] if too_old else []
        return of_driver + [
            {"code": problem.code, "message": f"GPU {one.gpu.index}: {problem.message}", "fix": problem.fix}
            for one in self.spread
            if one.ours
            for problem in problems_of(one.gpu)
        ]

    @property
    def missing(self) -> dict[str, str] | None:
        """Why there are no GPUs to show."""
        found = self.snapshot
        return {"code": found.problem_code, "message": found.problem, "fix": found.problem_fix} if found.problem else None

    def gpus_json(self) -> list[dict[str, Any]]:
        return [_as_json(one) for one in self.spread]

    def driver_json(self) -> dict[str, str | None] | None:
        found = self.snapshot
        return {"source": found.source, "version": found.driver_version, "cuda_version": found.cuda_version} if found.source else None

    def distribution_json(self) -> dict[str, Any] | None:
        """None while no rank of ours is on a GPU."""
        if not any(one.ranks for one in self.spread):
            return None
        against_plan = [one.as_json() for one in compare(self.spread, self.planned)]
        return {"imbalance_percent": imbalance_percent(self.spread), "against_plan": against_plan or None}


def collect_gpus(ranks: Ranks, environ: Mapping[str, str], memory: Mapping[str, Any] | None = None, planned: Mapping[str, Any] | None = None) -> GpuReport:
    """
    Args:
        ranks: our processes.
        environ: says which GPUs are ours.
        memory, planned: what the engine logged of a rank's memory, and what the memory plan expected, as state.json has them.
    """
    found = gpus.snapshot()
    spread = distribute(found.gpus, ranks, visible=visible(environ, found.gpus), memory=RankMemory.logged(memory), owner_of=owner_of)
    torch = torch_build()
    return GpuReport(found, spread, planned, torch.cuda if torch else None)


def _as_json(one: GpuMemory) -> dict[str, Any]:
    facts = {key: value for key, value in asdict(one.gpu).items() if key not in NOT_SHOWN}
    return {
        **facts,
        "ours": one.ours,
        "own_bytes": one.own_bytes,
        "foreign_bytes": one.foreign_bytes,
        "unattributed_bytes": one.unattributed_bytes,
        "ranks": list(one.ranks),
        "parts": asdict(one.parts) if one.parts else None,
        "processes": [_holder_json(holder) for holder in one.holders],
        "problems": [problem.message for problem in problems_of(one.gpu)],
        "notes": list(notes_of(one.gpu)),
    }


def _holder_json(holder: Holder) -> dict[str, Any]:
    owner = holder.owner
    return {
        "pid": holder.pid,
        "memory_bytes": holder.memory_bytes,
        "ours": holder.ours,
        "rank": holder.rank,
        "user": owner.user if owner else None,
        "command": owner.command if owner else None,
    }
