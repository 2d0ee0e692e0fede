"""The demo checkpoint: a tiny model of the large one's architecture that was trained to see a small world truly.

The package brings it in FP8 (``checkpoint/``); ``python -m qwen_fp8_ops.weights.demo FOLDER`` writes the copy that a machine
serves, in a process of its own, for that takes torch. Asking whether it is there does not, and importing this costs nothing.
``world/`` draws what it knows, ``training/`` made it, ``evaluation/`` asks a served one and tells how often it is right.
"""

from qwen_fp8_ops.weights.demo.folder import ensure, is_current
from qwen_fp8_ops.weights.demo.recipe import recipe_for

__all__ = ["ensure", "is_current", "recipe_for"]
