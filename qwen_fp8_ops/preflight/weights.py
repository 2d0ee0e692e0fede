"""Are the weights whole, as far as a second can tell? What is seen here costs no ten minutes of loading."""

from __future__ import annotations

import os
from collections.abc import Iterator

from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.preflight.check import check
from qwen_fp8_ops.preflight.finding import Finding
from qwen_fp8_ops.preflight.subject import Subject
from qwen_fp8_ops.weights import demo
from qwen_fp8_ops.weights.facts import facts_for
from qwen_fp8_ops.weights.room import gigabytes, room
from qwen_fp8_ops.weights.verdict import Bad
from qwen_fp8_ops.weights.verify import is_needed, verify_fast

GROUP = "Model"
SHOWN = 3
CODE = "weights-verified"


@check(
    GROUP,
    {
        "model-present": "the model's folder has its config.json, or the demo checkpoint is made at the start",
        "model-disk": "there is space for a model that is still to be downloaded",
    },
)
def check_model(subject: Subject) -> Iterator[Finding]:
    path = subject.plan.model_path
    if (path / "config.json").is_file():
        yield Finding("model-present", "pass", str(path))
    elif subject.settings.is_demo_model:
        yield Finding("model-present", "pass", f"{path} is made at the start")
    else:
        yield Finding("model-present", "fail", f"Model not found at {path}", "./download_model.sh\nOr set MODEL_PATH to the folder that has it.")
        yield from _check_room(subject)


def _check_room(subject: Subject) -> Iterator[Finding]:
    """Only of a model whose size is known before it is here."""
    path = subject.plan.model_path
    try:
        needed, free = facts_for(path, subject.settings.model_id).checkpoint_bytes, room(path).free_bytes
    except OpsError:
        return
    if free < needed:
        seen = f"{path} has {gigabytes(free)} free, the model takes {gigabytes(needed)}"
        yield Finding("model-disk", "warn", seen, "Free some space, or set MODEL_PATH to a folder on a larger disk before ./download_model.sh.")


@check(GROUP, {CODE: "the weights are whole: names, sizes, headers (`qwen-fp8 verify` reads every byte)"})
def check_weights(subject: Subject) -> Iterator[Finding]:
    """Only of a model that is there; ``model-present`` tells of one that is not."""
    folder, settings = subject.plan.model_path, subject.settings
    if not os.path.exists(folder / "config.json") or (settings.is_demo_model and not demo.is_current(folder, demo.recipe_for(settings.on_cpu))):
        return
    verdict = verify_fast(folder)
    stopping = [bad for bad in verdict.bad if _stops_a_start(bad)]
    if stopping:
        yield Finding(CODE, "fail", f"The weights in {folder} are not whole: {_told(stopping)}", _fixes(stopping))
    elif verdict.bad:
        yield Finding(CODE, "warn", f"Something in {folder} is not as it should be: {_told(verdict.bad)}", _fixes(verdict.bad))
    else:
        yield Finding(CODE, "pass", f"{verdict.files} files, {gigabytes(verdict.size_bytes)}, with names, sizes and headers as they should be")


def _stops_a_start(bad: Bad) -> bool:
    """A time that changed may mean nothing, files beside the checkpoint are not loaded, and no engine reads the README."""
    return is_needed(bad.file) and bad.kind not in ("stale", "extra")


def _told(found: list[Bad] | tuple[Bad, ...]) -> str:
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(map(str, found[:SHOWN])) + more


def _fixes(found: list[Bad] | tuple[Bad, ...]) -> str:
    return "\n".join(dict.fromkeys(bad.fix for bad in found))
