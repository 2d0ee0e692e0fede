"""A CUDA build of torchvision beside a CPU build of torch, as PyPI gives them, made importable."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_declared: list[Any] = []
"""torch forgets an operator library when its object dies, so it is kept here."""


def cure_torchvision() -> bool:
    """Make ``import torchvision`` work where a CUDA build of it lies beside a CPU torch; True when that was needed.

    torchvision/_meta_registrations.py refers to ``nms`` at import whether its library was loaded or not. Declaring the
    schemas is enough: the vision processors use none of these operators.
    """
    torch: Any = import_module("torch")
    spec = find_spec("torchvision")
    if _declared or torch.version.cuda or "torchvision" in sys.modules or spec is None or spec.origin is None:
        return False
    try:
        for library in Path(spec.origin).parent.glob("_C*.so"):
            torch.ops.load_library(library)
            return False
    except OSError:
        pass
    operators = torch.library.Library("torchvision", "DEF")
    operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(operators)
    return True
