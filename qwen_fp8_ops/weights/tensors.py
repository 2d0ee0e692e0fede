"""Do the shards' headers agree with the index, with each other and with config.json? Pure: what was read is judged here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from qwen_fp8_ops.weights.headers import Header, TensorInfo
from qwen_fp8_ops.weights.layout import Layout
from qwen_fp8_ops.weights.paper import SCALE_SUFFIX, Quantisation

Headers = Mapping[str, Header]
Fault = tuple[str, str]
"""The file at fault, and its problem."""

FP8 = ("F8_E4M3", "F8_E5M2")


def index_faults(layout: Layout, headers: Headers) -> Iterator[Fault]:
    """``headers`` are those that could be read; what the others hold is not asked."""
    if layout.shard_of is None:
        return
    promised: dict[str, set[str]] = {}
    for tensor, shard in layout.shard_of.items():
        promised.setdefault(shard, set()).add(tensor)
    for shard, header in headers.items():
        lacking = promised[shard] - header.tensors.keys()
        strange = header.tensors.keys() - promised[shard]
        if lacking and len(lacking) == len(promised[shard]):
            yield shard, f"is another shard: it holds none of the {len(lacking)} tensors that the index places in it"
        elif lacking:
            yield shard, f"lacks {_some(lacking)} that the index places in it"
        elif strange:
            yield shard, f"holds {_some(strange)} that the index does not place in it: it may be of another revision"


def scale_faults(quantisation: Quantisation | None, layout: Layout, headers: Headers) -> Iterator[Fault]:
    """Every quantised weight has its scales, and every weight that should be quantised is.

    vLLM takes a weight without scales and computes nonsense with it, so this is looked for here.
    """
    if quantisation is None:
        for shard, header in headers.items():
            if any(info.dtype in FP8 for info in header.tensors.values()):
                yield "config.json", f"has no quantization_config, but the weights in {shard} are FP8"
                return
    elif quantisation.method == "fp8":
        elsewhere = {tensor for tensor, shard in (layout.shard_of or {}).items() if shard not in headers}
        scales = {name: info for header in headers.values() for name, info in header.tensors.items() if "_scale" in name}
        for shard, header in headers.items():
            yield from ((shard, problem) for problem in _scale_problems(quantisation, header, scales, elsewhere))


def _scale_problems(quantisation: Quantisation, header: Header, scales: Mapping[str, TensorInfo], elsewhere: set[str]) -> Iterator[str]:
    bare, misshapen, plain = [], [], []
    for name, info in header.tensors.items():
        if "_proj" not in name or "_scale" in name or name.endswith(".bias") or ".visual." in name or quantisation.keeps(name):
            continue
        if info.dtype not in FP8:
            plain.append(name)
            continue
        scale_name = name + SCALE_SUFFIX
        scale = scales.get(scale_name) or (None if quantisation.block else scales.get(name + "_scale"))
        if scale is not None:
            if quantisation.block and scale.shape != quantisation.scale_shape(info.shape):
                misshapen.append(name)
        elif scale_name not in elsewhere:
            bare.append(name)
    if bare:
        yield f"holds FP8 weights without their scales: {_some(bare)}"
    if misshapen:
        yield f"holds FP8 weights whose scales have another shape: {_some(misshapen)}"
    if plain:
        yield f"holds weights that are not FP8, though config.json says so: {_some(plain)}"


def config_faults(config: Mapping[str, Any], layout: Layout, headers: Headers) -> Iterator[Fault]:
    """Is this config.json that of another model?"""
    text = config.get("text_config")
    text = text if isinstance(text, Mapping) else config
    names = layout.shard_of or {name: shard for shard, header in headers.items() for name in header.tensors}
    layers = sum(name.endswith(".input_layernorm.weight") for name in names)
    if layers and layers != text.get("num_hidden_layers"):
        yield "config.json", f"says num_hidden_layers={text.get('num_hidden_layers')!r}, the weights have {layers} layers: it is of another model"
        return
    for header in headers.values():
        for name, info in header.tensors.items():
            said = (text.get("vocab_size"), text.get("hidden_size"))
            if name.endswith("embed_tokens.weight") and info.shape != said:
                yield "config.json", f"says vocab_size and hidden_size {said}, the weights have {info.shape}: it is of another model"


def _some(names: Iterable[str]) -> str:
    """How many, and one of them."""
    ordered = sorted(names)
    return f"{len(ordered)} tensor{'s' if len(ordered) > 1 else ''}, such as {ordered[0]}" if len(ordered) > 1 else f"the tensor {ordered[0]}"
