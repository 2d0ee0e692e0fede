"""The demo checkpoint: a tiny model of the large one's architecture, made on this machine for machines without a GPU.

``python -m qwen_fp8_ops.weights.demo FOLDER`` makes it in a process of its own, for that takes torch; asking whether it is
there does not, and importing this costs nothing.
"""

from qwen_fp8_ops.weights.demo.folder import ensure, is_current

__all__ = ["ensure", "is_current"]
