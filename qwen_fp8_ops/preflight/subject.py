"""What is checked: the plan, the run's files, the environment the service would start in; and what several checks ask of the machine, asked once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.config.settings import Settings
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import gpus, process, slurm
from qwen_fp8_ops.outside.lock import holder
from qwen_fp8_ops.outside.nvml import Gpu, GpuSnapshot
from qwen_fp8_ops.plan.launch import LaunchPlan
from qwen_fp8_ops.plan.visible import visible
from qwen_fp8_ops.slurm import allocation
from qwen_fp8_ops.slurm.allocation import Allocation

VISIBLE = "CUDA_VISIBLE_DEVICES"
MARK = b"QWEN_FP8_RUN="
"""The plan puts it into the environment of every program of a run."""


class Standing(Enum):
    """Where this run is, seen from the check: does nobody supervise it, do we, or does another process?"""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"


@dataclass(frozen=True)
class Subject:
    plan: LaunchPlan
    paths: RunPaths
    environ: Mapping[str, str]

    @property
    def settings(self) -> Settings:
        return self.plan.settings

    @cached_property
    def driver(self) -> GpuSnapshot:
        return gpus.snapshot()

    @cached_property
    def visible_gpus(self) -> tuple[Gpu, ...]:
        """Those that the engines would see, lost ones included: what the plan gives them, else the environment, else what SLURM granted."""
        environ = dict(self.environ)
        if self.allocation and self.allocation.on_node and self.allocation.gpu_indices:  # salloc's own shell has no variable for them
            environ.setdefault("SLURM_JOB_GPUS", ",".join(map(str, self.allocation.gpu_indices)))
        planned = [program.env[VISIBLE] for program in self.plan.engines if VISIBLE in program.env]
        return visible({**environ, VISIBLE: ",".join(planned)} if planned else environ, self.driver.gpus)

    @cached_property
    def gpus(self) -> tuple[Gpu, ...]:
        """Those that the service would use: the first GPU_COUNT that work."""
        return tuple(gpu for gpu in self.visible_gpus if not gpu.lost)[: self.settings.gpu_count]

    @property
    def wants_allocation(self) -> bool:
        """REQUIRE_SLURM=auto: where GPUs are needed and SLURM is there."""
        settings = self.settings
        return settings.require_slurm == "on" or (settings.require_slurm == "auto" and settings.gpu_count > 0 and slurm.installed())

    @cached_property
    def allocation(self) -> Allocation | None:
        """Where none is wanted, the controller is not asked about one that no variable speaks of: it may be slow to answer."""
        return allocation.current(self.environ) if self.wants_allocation or self.environ.get("SLURM_JOB_ID") else None

    @cached_property
    def standing(self) -> Standing:
        try:
            owner = holder(self.paths.lock)
        except OpsError:
            return Standing.STOPPED
        if owner is None or not owner.alive:
            return Standing.STOPPED
        return Standing.STARTING if owner.pid == os.getpid() else Standing.RUNNING

    @cached_property
    def weight_bytes(self) -> int:
        """Of the safetensors files that are here; 0 while the model is not."""
        try:
            return sum(path.stat().st_size for path in self.plan.model_path.glob("*.safetensors"))
        except (OSError, ValueError):
            return 0  # which the check of the model tells

    @cached_property
    def own_pids(self) -> frozenset[int]:
        """Processes of this run that are alive, found by the mark in their environment."""
        mark = MARK + os.fsencode(self.paths.run) + b"\0"
        return frozenset(pid for pid in process.all_pids() if mark in process.environment_of(pid))
