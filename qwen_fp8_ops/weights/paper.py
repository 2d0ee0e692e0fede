"""The tensors that a config.json promises, on paper: names, shapes and types, for a checkpoint that is not on this disk.

Qwen3-MoE and Qwen3-VL-MoE by the names of their published checkpoints. The experts of a layer stand as one entry with a count,
which keeps a model of 73,000 tensors at a thousand lines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qwen_fp8_ops.errors import OpsError

QUANTISED_DTYPE = "F8_E4M3"
SCALE_SUFFIX = "_scale_inv"
SCALE_DTYPE = "BF16"
"""As published; vLLM keeps scales as float32, a difference of 28 MB at 235B parameters."""

DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
ARCHITECTURES = ("Qwen3VLMoeForConditionalGeneration", "Qwen3MoeForCausalLM")

Shape = tuple[int, ...]


@dataclass(frozen=True)
class PaperTensor:
    """``count`` tensors of this form; ``name`` is the first one's."""

    name: str
    dtype: str
    shape: Shape
    count: int = 1


class Numbers:
    """A part of config.json, whose missing or wrong numbers are told by their key."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise OpsError(f"{where} is no JSON object", code="bad-config")
        self._value = value
        self._where = where

    def number(self, key: str, default: int | None = None) -> int:
        found = self._value.get(key)
        found = default if found is None else found
        if not isinstance(found, int) or isinstance(found, bool) or found < 0:
            what = f"{key}={found!r}, which is no whole number" if key in self._value else f"no {key}"
            raise OpsError(f"{self._where} has {what}", code="bad-config")
        return found

    def get(self, key: str) -> Any:
        return self._value.get(key)

    def part(self, key: str) -> Numbers | None:
        """None when there is no such part."""
        found = self._value.get(key)
        return None if found is None else Numbers(found, f"{self._where}: {key}")


@dataclass(frozen=True)
class Quantisation:
    """How weights are stored: ``block`` is rows by columns that share one scale; ``ignored`` are modules that stay as they were."""

    method: str
    block: tuple[int, int] | None
    ignored: frozenset[str]

    @classmethod
    def of(cls, config: Numbers) -> Quantisation | None:
        """
        Raises:
            OpsError: it is there, and malformed.
        """
        part = config.part("quantization_config")
        if part is None:
            return None
        block = part.get("weight_block_size")
        if block is not None and not (isinstance(block, list) and len(block) == 2 and all(type(side) is int and side > 0 for side in block)):
            raise OpsError(f"config.json has weight_block_size={block!r}, which is no pair of numbers", code="bad-config")
        ignored = part.get("ignored_layers") or part.get("modules_to_not_convert") or []
        return cls(str(part.get("quant_method") or "unknown"), (block[0], block[1]) if block else None, frozenset(map(str, ignored)))

    def keeps(self, tensor: str) -> bool:
        """Is the tensor in a module that stays as it was? The names are those of modules, whole, perhaps of one around it."""
        module = tensor.rpartition(".")[0]
        while module and module not in self.ignored:
            module = module.rpartition(".")[0]
        return bool(module)

    def scale_shape(self, shape: Shape) -> Shape:
        rows, columns = self.block or shape[-2:]
        return (*shape[:-2], -(-shape[-2] // rows), -(-shape[-1] // columns))


def tensors(config: Mapping[str, Any]) -> Iterator[PaperTensor]:
    """Every tensor of the checkpoint.

    Raises:
        OpsError: an architecture that is not drawn here, or a number that is missing.
    """
    names = config.get("architectures") or ["no architecture"]
    if names[0] not in ARCHITECTURES:
        raise OpsError(f"The tensors of {names[0]} are not known without its weights; known are {', '.join(ARCHITECTURES)}", code="unknown-architecture", fix="./download_model.sh")
    whole = Numbers(config, "config.json")
    vision = whole.part("vision_config")
    text = whole.part("text_config") or whole
    quantisation = Quantisation.of(whole)
    dtype = DTYPES.get(str(text.get("dtype") or text.get("torch_dtype") or whole.get("dtype") or whole.get("torch_dtype")), "BF16")
    for tensor in _text(text, tied_to(whole), "model.language_model." if vision else "model."):
        quantised = quantisation is not None and tensor.name.endswith("_proj.weight") and not quantisation.keeps(tensor.name)
        yield PaperTensor(tensor.name, QUANTISED_DTYPE if quantised else dtype, tensor.shape, tensor.count)
        if quantised and quantisation is not None:
            yield PaperTensor(tensor.name + SCALE_SUFFIX, SCALE_DTYPE, quantisation.scale_shape(tensor.shape), tensor.count)
    if vision:
        for name, shape in _vision(vision, "model.visual."):
            yield PaperTensor(name, dtype, shape)


def tied_to(config: Numbers) -> bool:
    """Is lm_head the embedding? The text part's word is not asked where the whole has one of its own."""
    text = config.part("text_config")
    said = config.get("tie_word_embeddings")
    return bool(text.get("tie_word_embeddings") if said is None and text else said)


def head_dim(text: Numbers) -> int:
    return text.number("head_dim", text.number("hidden_size") // max(1, text.number("num_attention_heads")))


def _text(text: Numbers, tied: bool, at: str) -> Iterator[PaperTensor]:
    hidden, vocabulary = text.number("hidden_size"), text.number("vocab_size")
    yield _plain(f"{at}embed_tokens.weight", vocabulary, hidden)
    if not tied:
        yield _plain("lm_head.weight", vocabulary, hidden)
    yield _plain(f"{at}norm.weight", hidden)
    dense = text.get("mlp_only_layers") or ()
    step = max(1, text.number("decoder_sparse_step", 1))
    for layer in range(text.number("num_hidden_layers")):
        yield from _attention(text, f"{at}layers.{layer}.")
        if layer not in dense and (layer + 1) % step == 0 and text.number("num_experts"):
            yield from _experts(text, f"{at}layers.{layer}.mlp.")
        else:
            yield from _mlp(f"{at}layers.{layer}.mlp.", hidden, text.number("intermediate_size"))


def _attention(text: Numbers, at: str) -> Iterator[PaperTensor]:
    hidden, width = text.number("hidden_size"), head_dim(text)
    queries = text.number("num_attention_heads") * width
    keys = text.number("num_key_value_heads", text.number("num_attention_heads")) * width
    yield _plain(f"{at}input_layernorm.weight", hidden)
    yield _plain(f"{at}post_attention_layernorm.weight", hidden)
    for name, shape in {"q_proj": (queries, hidden), "k_proj": (keys, hidden), "v_proj": (keys, hidden), "o_proj": (hidden, queries)}.items():
        yield _plain(f"{at}self_attn.{name}.weight", *shape)
        if text.get("attention_bias"):
            yield _plain(f"{at}self_attn.{name}.bias", shape[0])
    yield _plain(f"{at}self_attn.q_norm.weight", width)
    yield _plain(f"{at}self_attn.k_norm.weight", width)


def _experts(text: Numbers, at: str) -> Iterator[PaperTensor]:
    experts = text.number("num_experts")
    yield _plain(f"{at}gate.weight", experts, text.number("hidden_size"))
    yield from _mlp(f"{at}experts.0.", text.number("hidden_size"), text.number("moe_intermediate_size"), experts)


def _mlp(at: str, hidden: int, width: int, count: int = 1) -> Iterator[PaperTensor]:
    yield _plain(f"{at}gate_proj.weight", width, hidden, count=count)
    yield _plain(f"{at}up_proj.weight", width, hidden, count=count)
    yield _plain(f"{at}down_proj.weight", hidden, width, count=count)


def _plain(name: str, *shape: int, count: int = 1) -> PaperTensor:
    return PaperTensor(name, "", shape, count)


def _vision(vision: Numbers, at: str) -> Iterator[tuple[str, Shape]]:
    hidden, width, out = (vision.number(key) for key in ("hidden_size", "intermediate_size", "out_hidden_size"))
    patch = vision.number("patch_size")
    yield from _with_bias(f"{at}patch_embed.proj", (hidden, vision.number("in_channels", 3), vision.number("temporal_patch_size"), patch, patch))
    yield f"{at}pos_embed.weight", (vision.number("num_position_embeddings"), hidden)
    for block in range(vision.number("depth")):
        for name, shape in {
            "norm1": (hidden,),
            "norm2": (hidden,),
            "attn.qkv": (3 * hidden, hidden),
            "attn.proj": (hidden, hidden),
            "mlp.linear_fc1": (width, hidden),
            "mlp.linear_fc2": (hidden, width),
        }.items():
            yield from _with_bias(f"{at}blocks.{block}.{name}", shape)
    merged = hidden * vision.number("spatial_merge_size") ** 2
    # Deepstack mergers norm after the merge, the last one before it.
    for merger, normed in [("merger", hidden), *((f"deepstack_merger_list.{level}", merged) for level in range(deepstack_levels(vision)))]:
        yield from _with_bias(f"{at}{merger}.norm", (normed,))
        yield from _with_bias(f"{at}{merger}.linear_fc1", (merged, merged))
        yield from _with_bias(f"{at}{merger}.linear_fc2", (out, merged))


def deepstack_levels(vision: Numbers) -> int:
    return len(vision.get("deepstack_visual_indexes") or ())


def _with_bias(at: str, shape: Shape) -> Iterator[tuple[str, Shape]]:
    yield f"{at}.weight", shape
    yield f"{at}.bias", shape[:1]


def elements(shape: Shape) -> int:
    return math.prod(shape)
