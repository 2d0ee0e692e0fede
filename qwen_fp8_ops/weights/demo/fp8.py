"""Block FP8, as the large checkpoint keeps it: e4m3 values and one scale for every block of 128 x 128.

Scales are powers of two here. An e4m3 value has three bits behind its point, bfloat16 seven, so value times scale is a bfloat16
number exactly: a CPU without FP8 kernels serves the very same weights as a GPU.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

BLOCK = 128
LARGEST = 448.0
"""Of e4m3fn. https://arxiv.org/abs/2209.05433, table 1"""

QUANTIZED = re.compile(r"language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.experts\.\d+\.(gate|up|down)_proj)\.weight$")
"""What the large model's FP8 release quantises: the text model's linear layers. Router, norms, embeddings and the vision tower stay bfloat16."""

KEPT = ("lm_head", "model.embed_tokens", "model.language_model.embed_tokens", "model.visual", "visual")
SCALE = "_scale_inv"


def quantization_config(layers: int) -> dict[str, Any]:
    """The entry of config.json. ``modules_to_not_convert`` names what stays bfloat16."""
    kept = [*KEPT, *(f"model.language_model.layers.{layer}.mlp.gate" for layer in range(layers))]
    return {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [BLOCK, BLOCK], "modules_to_not_convert": kept}


def quantize(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Values [rows, columns] in float8_e4m3fn and scales [rows / 128, columns / 128] in float32, both sides whole blocks."""
    import torch

    blocks = _blocks(weight.float())
    largest = blocks.abs().amax((1, 3)).clamp(min=2.0**-100)
    scales = torch.exp2(torch.ceil(torch.log2(largest / LARGEST)))
    values = (blocks / scales[:, None, :, None]).reshape(weight.shape).to(torch.float8_e4m3fn)
    return values, scales


def dequantize(values: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The bfloat16 weight that the values and scales mean, exactly."""
    import torch

    return (_blocks(values.float()) * scales[:, None, :, None]).reshape(values.shape).to(torch.bfloat16)


def _blocks(weight: torch.Tensor) -> torch.Tensor:
    rows, columns = weight.shape
    return weight.reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)


def quantize_all(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors in its FP8 form; what is not quantised becomes bfloat16."""
    import torch

    made: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        if QUANTIZED.search(name):
            made[name], made[name + SCALE] = quantize(weight)
        else:
            made[name] = weight.to(torch.bfloat16)
    return made


def dequantize_all(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same checkpoint in bfloat16."""
    return {
        name: dequantize(weight, weights[name + SCALE]) if name + SCALE in weights else weight for name, weight in weights.items() if not name.endswith(SCALE)
    }
