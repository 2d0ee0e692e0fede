"""Can weights be kept in GPU memory while engines come and go."""

from __future__ import annotations

from collections.abc import Iterator

from qwen_fp8_ops.engine import version
from qwen_fp8_ops.engine.flags import flag_of
from qwen_fp8_ops.engine.weight_cache import NOT_WITH, SINCE
from qwen_fp8_ops.outside.weight_traces import is_foreign
from qwen_fp8_ops.preflight.check import check
from qwen_fp8_ops.preflight.finding import Finding
from qwen_fp8_ops.preflight.subject import Subject

CODE = "weight-cache"
OFF = "Set WEIGHT_CACHE=off."


@check("Model", {CODE: "WEIGHT_CACHE=on: weights can be kept in GPU memory, and nothing in VLLM_EXTRA_ARGS says otherwise"})
def check_weight_cache(subject: Subject) -> Iterator[Finding]:
    if subject.settings.weight_cache:
        problem, fix = _problem(subject)
        if problem:
            yield Finding(CODE, "fail", problem, fix)
        else:
            yield Finding(CODE, "pass", "weights stay in GPU memory while the engine restarts")


def _problem(subject: Subject) -> tuple[str, str]:
    """What is wrong, and what to do; nothing when nothing is."""
    settings, folder = subject.settings, subject.paths.weight_sockets
    if settings.on_cpu:
        return "WEIGHT_CACHE=on: there is no GPU (GPU_COUNT=0)", OFF
    clashing = [word for word in settings.vllm_extra_args if flag_of(word) in NOT_WITH]
    if clashing:
        return f"{clashing[0]} in VLLM_EXTRA_ARGS does not go together with WEIGHT_CACHE=on, which has a loader of its own", f"Take it out, or: {OFF}"
    installed = version.installed()
    if installed and _is_before(installed):
        return (
            f"vLLM {installed} has no `vllm preload`; {'.'.join(map(str, SINCE))} is the first that has",
            f"python3 scripts/setup_venv.py --extra gpu\nOr: {OFF}",
        )
    if is_foreign(folder):
        return f"{folder}, where the weight cache would listen, belongs to somebody else or is no folder", f"ls -ld {folder}\nOr: {OFF}"
    return "", ""


def _is_before(installed: str) -> bool:
    try:
        return version.release(installed) < SINCE
    except ValueError:
        return False  # a build from somebody's checkout
