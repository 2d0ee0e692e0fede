"""The model as it is trained: transformers' own, fed with packed pictures, and heads on its vision tower that training alone uses."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from qwen_fp8_ops.outside.torchvision_cure import cure_torchvision
from qwen_fp8_ops.weights.demo import architecture
from qwen_fp8_ops.weights.demo.training.encoding import LABELS, Encoded

INITIAL_DEVIATION = 0.04
BALANCE = 0.01
"""Weight of the term that keeps all experts in use (Switch Transformer, arXiv 2101.03961, section 2.2)."""


class Batch:
    """Examples side by side, padded on the right: ids, answers (the n-th answer's number) [B, T]; positions [4, B, T] (the first is the text's own)."""

    def __init__(self, examples: list[Encoded]) -> None:
        length = max(len(example.ids) for example in examples)
        self.kinds = [example.kinds for example in examples]
        self.ids = torch.zeros(len(examples), length, dtype=torch.long)
        self.answers = torch.zeros(len(examples), length, dtype=torch.long)
        self.positions = torch.zeros(4, len(examples), length, dtype=torch.long)
        self.positions[0] = torch.arange(length)
        for row, example in enumerate(examples):
            size = len(example.ids)
            self.ids[row, :size] = torch.from_numpy(example.ids)
            self.answers[row, :size] = torch.from_numpy(example.scored)
            self.positions[1:, row, :size] = torch.from_numpy(example.positions)
        self.patches, self.grids, self.labels = (
            torch.from_numpy(np.concatenate([getattr(example, name) for example in examples])) for name in ("patches", "grids", "labels")
        )

    def to(self, device: torch.device) -> Batch:
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))
        return self


class Trainee(nn.Module):
    """``pads``: the ids of the image and the video token."""

    def __init__(self, token_ids: dict[str, int]) -> None:
        cure_torchvision()
        transformers: Any = import_module("transformers")  # has no types for these

        super().__init__()
        values = architecture.config(token_ids)
        config = transformers.Qwen3VLMoeConfig(**{name: value for name, value in values.items() if name not in ("architectures", "model_type", "dtype")})
        self.model = transformers.Qwen3VLMoeForConditionalGeneration(config).float()
        self.model.set_experts_implementation("grouped_mm")
        self.model.set_attn_implementation("eager")  # for short rows faster than torch's fused attention: 0.64 against 0.74 s a step on two cores
        for name, weight in self.model.named_parameters():
            if weight.dim() > 1 and "embed" not in name:
                nn.init.normal_(weight, std=INITIAL_DEVIATION)
        self.pads: Tensor
        self.register_buffer("pads", torch.tensor([token_ids["<|image_pad|>"], token_ids["<|video_pad|>"]]), persistent=False)
        self.heads = nn.Linear(architecture.VISION_HIDDEN, sum(LABELS))
        self._routed: list[Tensor] = []
        for layer in self.model.model.language_model.layers:
            layer.mlp.gate.register_forward_hook(lambda _gate, _inputs, outputs: self._routed.append(outputs[0]))

    def look(self, batch: Batch) -> tuple[Any, Tensor]:
        """The vision tower's output, and how far it is from knowing what each patch shows."""
        pixels = batch.patches.float() / 127.5 - 1
        seen = self.model.model.visual(pixels, grid_thw=batch.grids, return_dict=True)
        losses = []
        for lit, logits, wanted in self.readings(seen.last_hidden_state, batch.labels):
            each = functional.cross_entropy(logits, wanted, reduction="none")
            # Most patches are background, and what is to be learnt there is soon learnt.
            losses += [each[lit].sum() / lit.sum().clamp(min=1), each[~lit].sum() / (~lit).sum().clamp(min=1)]
        return seen, torch.stack(losses).sum() / len(LABELS)

    def readings(self, seen: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """For each of ``LABELS``: which patches show something of it, logits [P, values], and labels [P]; corners of nothing are left out."""
        shown = labels[:, 3] > 0
        for place, logits in enumerate(self.heads(seen).float().split(LABELS, 1)):
            wanted = labels[:, place]
            if place < 4:
                yield wanted > 0, logits, wanted
            else:
                yield shown[shown], logits[shown], wanted[shown]

    def answer(self, batch: Batch, seen: Any) -> tuple[Tensor, Tensor]:
        """Logits [N, vocabulary] for the N tokens the model has to say, in the rows' order, and those tokens [N]."""
        language = self.model.model.language_model
        embeddings = language.embed_tokens(batch.ids)
        places = torch.isin(batch.ids, self.pads)
        deepstack = None
        if seen is not None:
            embeddings = embeddings.masked_scatter(places[..., None], seen.pooler_output.to(embeddings.dtype))
            deepstack = seen.deepstack_features
        self._routed.clear()
        hidden = language(
            inputs_embeds=embeddings, position_ids=batch.positions, visual_pos_masks=places, deepstack_visual_embeds=deepstack, use_cache=False
        ).last_hidden_state
        next_scored = batch.answers[:, 1:] > 0
        return self.model.lm_head(hidden[:, :-1][next_scored]).float(), batch.ids[:, 1:][next_scored]

    def imbalance(self) -> Tensor:
        """1 when every expert gets the same share of the tokens; grows as some are left out."""
        total = torch.zeros((), device=self.pads.device)
        for logits in self._routed:
            probabilities = logits.float().softmax(-1)
            chosen = probabilities.topk(architecture.EXPERTS_PER_TOKEN, -1).indices
            shares = functional.one_hot(chosen, architecture.EXPERTS).float().sum(1).mean(0) / architecture.EXPERTS_PER_TOKEN
            total = total + architecture.EXPERTS * (shares * probabilities.mean(0)).sum()
        return total / max(1, len(self._routed))
