"""After an engine died for want of memory: with which changes the memory plan says it would start, and which ways the plan knows itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qwen_fp8_ops.config.settings import OPTIONS
from qwen_fp8_ops.engine.failures.rule import Change
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.plan.fit import Case
from qwen_fp8_ops.plan.memory import MemoryPlan, memory_plan
from qwen_fp8_ops.plan.overhead import Overhead
from qwen_fp8_ops.plan.situation import Situation

JUDGED = frozenset(
    {"GPU_MEMORY_UTIL", "MAX_MODEL_LEN", "KV_CACHE_DTYPE", "MM_ENCODER_TP_MODE", "EXPERT_PARALLEL", "TENSOR_PARALLEL_SIZE", "GPU_COUNT", "CPU_KV_CACHE_GIB"}
)
"""Keys whose effect the plan computes. What activations take (MAX_NUM_BATCHED_TOKENS and the like) it only knows from a start."""

GPUS_OF_A_NODE = 8
"""Whoever has to mend a service now has no use for the advice to get more than these."""


def replan(situation: Situation, changes: Sequence[Change], kv_room_bytes: int | None = None) -> tuple[Change, ...]:
    """
    Args:
        changes: what the diagnosis proposes; those with which the plan can tell that it does not start are dropped.
        kv_room_bytes: what the dead engine measured to be left for the KV cache on the fullest GPU, perhaps less than nothing:
            it corrects what the plan assumed.
    """
    try:
        # What is free at this moment says nothing: the dead engine's memory may not all be given back yet.
        hardware = replace(situation.hardware(), free_bytes=())
        plan = situation.memory_plan(hardware=hardware)
    except OpsError:
        return tuple(changes)  # nothing is known of the model
    if kv_room_bytes is not None and not situation.settings.on_cpu:
        plan = _corrected(plan, kv_room_bytes)
    case = Case(plan.settings, plan.facts, plan.hardware, plan.vllm_version, plan.overhead)
    kept = [change for change in changes if change.known or change.key not in JUDGED or _with(case, change).fit().starts]
    if plan.fits:
        return tuple(kept)
    named = {change.key for change in kept}
    own = [advice for advice in plan.advice if advice.key not in named and not (advice.key == "GPU_COUNT" and float(advice.value) > GPUS_OF_A_NODE)]
    return (*kept, *(Change(advice.key, advice.value, advice.why) for advice in own))


def _with(case: Case, change: Change) -> Case:
    return case.but(**{change.key.lower(): OPTIONS[change.key].kind.parse(str(change.value))})


def _corrected(plan: MemoryPlan, kv_room_bytes: int) -> MemoryPlan:
    taken = max(0, plan.fit.budget_bytes - plan.fit.rank.weights_bytes - kv_room_bytes)
    measured = Overhead(taken, "measured", "by the start that failed")
    return memory_plan(plan.settings, plan.facts, plan.hardware, plan.vllm_version, measured)
