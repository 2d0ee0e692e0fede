"""vLLM's loader of mapped weights (``--load-format ipc_cache``), with the tensors of Qwen3-VL that it leaves out.

It builds the model on the meta device, which has shapes and no memory, and puts the cache's tensors in the place of parameters and
buffers. What a model keeps in a plain attribute stays on the meta device. In Qwen3-VL that is ``deepstack_input_embeds``, zeros that
each step writes the vision tower's features into: with it left there, the engine ends at its first step. Seen in vLLM 0.32
(``model_loader/weight_cache/ipc_loader.py``, ``models/qwen3_vl.py``) with the demo model; a test runs both on the CPU.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

FLAG = "--load-format=ipc_cache"

SCRATCH = "deepstack_input_embeds"
MADE_LATER = frozenset({"kv_cache"})
"""Empty until the engine has made the KV cache, whatever way the weights came."""


class IncompleteWeightsError(RuntimeError):
    """A tensor is left without memory that this module does not know: what belongs into it cannot be told."""


def complete_mapped_weights(argv: Sequence[str]) -> None:
    """Take the place of vLLM's loader, in a process of an engine that maps its weights; elsewhere nothing is imported.

    Its registration logs a warning that there was one, which is the purpose.
    """
    if FLAG not in argv:
        return
    loaders: Any = import_module("vllm.model_executor.model_loader")
    given: Any = import_module("vllm.model_executor.model_loader.weight_cache.ipc_loader").IpcModelLoader

    class WholeModelLoader(given):  # type: ignore[misc]
        def load_model(self, *args: Any, **kwargs: Any) -> Any:
            return complete(super().load_model(*args, **kwargs))

    logger = logging.getLogger(loaders.__name__)
    level, logger.level = logger.level, logging.ERROR
    try:
        loaders.register_model_loader("ipc_cache")(WholeModelLoader)
    finally:
        logger.setLevel(level)


def complete(model: Any) -> Any:
    """Give the model's scratch tensors memory, beside its parameters; returns it.

    Raises:
        IncompleteWeightsError: another tensor has none.
    """
    torch: Any = sys.modules["torch"]
    device = next(model.parameters()).device
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key == SCRATCH and isinstance(value, list):
                value[:] = [torch.zeros_like(tensor, device=device) if tensor.is_meta else tensor for tensor in value]
            elif key not in MADE_LATER and any(tensor.is_meta for tensor in _tensors(value, torch)):
                raise IncompleteWeightsError(f"weights from the cache leave {name}.{key} without memory; WEIGHT_CACHE=off reads them as usual")
    return model


def _tensors(value: Any, torch: Any) -> list[Any]:
    """Those in a plain attribute: the attribute itself, or in a list or a dict of it. Parameters and buffers are vLLM's own to fill."""
    values = value if isinstance(value, (list, tuple)) else value.values() if isinstance(value, dict) else [value]
    return [one for one in values if isinstance(one, torch.Tensor)]
