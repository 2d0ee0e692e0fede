"""The GPUs of an allocation on a node that others share: an engine must not take the first ones it sees, but ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from qwen_fp8_ops.outside import gpus
from qwen_fp8_ops.plan.launch import LaunchPlan
from qwen_fp8_ops.slurm.allocation import Allocation

VARIABLE = "CUDA_VISIBLE_DEVICES"


def confined(plan: LaunchPlan, allocation: Allocation | None, environ: Mapping[str, str]) -> LaunchPlan:
    """The plan with ``CUDA_VISIBLE_DEVICES`` for its engines and their weight cache, where SLURM granted GPUs and did not set it: in salloc's own shell
    and in one that came by ssh. Where the driver shows no more than what was granted, the site confines us already, and the
    node's own numbers would be wrong.
    """
    granted = allocation.gpu_indices if allocation and allocation.on_node else ()
    if plan.settings.on_cpu or VARIABLE in environ or not granted or len(gpus.snapshot().gpus) <= len(granted):
        return plan
    ours = {VARIABLE: ",".join(map(str, granted))}
    return replace(plan, programs=tuple(replace(program, env={**program.env, **ours}) if program.loads_weights else program for program in plan.programs))
