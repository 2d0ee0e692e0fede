"""Are the weights whole, as far as a second can tell? What is seen here costs no ten minutes of loading."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from qwen_fp8_ops.preflight.finding import Finding
from qwen_fp8_ops.weights import demo
from qwen_fp8_ops.weights.room import gigabytes
from qwen_fp8_ops.weights.verdict import Bad
from qwen_fp8_ops.weights.verify import is_needed, verify_fast

if TYPE_CHECKING:
    from qwen_fp8_ops.preflight.checks import Subject

SHOWN = 3
CODE = "weights-verified"


def check_weights(subject: Subject) -> Iterator[Finding]:
    """Only of a model that is there; ``model-present`` tells of one that is not."""
    folder = subject.plan.model_path
    if not os.path.exists(folder / "config.json") or (subject.settings.is_demo_model and not demo.is_current(folder)):
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
