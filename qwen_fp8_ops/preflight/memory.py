"""Would the engine find the memory it needs? The memory plan, as one finding: ten minutes of loading are too long a way to learn it."""

from __future__ import annotations

from collections.abc import Iterator

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.plan.situation import Situation
from qwen_fp8_ops.preflight.check import check
from qwen_fp8_ops.preflight.finding import Finding
from qwen_fp8_ops.preflight.subject import Subject

CODE = "memory-plan"
MOST_ADVICE = 3


@check("Model", {CODE: "weights, KV cache and the rest fit into the memory that the engine may use"})
def check_memory(subject: Subject) -> Iterator[Finding]:
    """Without a driver the configured cards count: what is missing then is told by the check of the GPUs."""
    try:
        plan = Situation(subject.settings, subject.plan.model_path, subject.paths, subject.environ).memory_plan()
    except OpsError as error:
        if error.code != "no-model":  # which the check of the model tells
            yield Finding(CODE, "warn", f"No memory plan can be made: {error.message}", error.fix)
        return
    if plan.fits:
        overhead = "" if subject.settings.on_cpu else f", overhead {plan.overhead.source}"
        yield Finding(
            CODE,
            "pass",
            f"{plan.fit.kv_tokens:,} tokens of KV cache: {plan.fit.max_concurrency:.1f} requests of {subject.settings.max_model_len:,} ({plan.hardware.name}{overhead})",
        )
        return
    ways = [f"Set {advice.key}={advice.value}: {advice.why}" for advice in plan.advice[:MOST_ADVICE]]
    yield Finding(CODE, "fail", f"It would not fit in memory; vLLM would end with: {plan.error_expected}", "\n".join([*ways, "All numbers: qwen-fp8 plan"]))
