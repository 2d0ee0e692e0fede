"""Muon: momentum whose every update is made orthogonal, for the matrices inside a network (Jordan et al. 2024).

torch has a Muon for single matrices; the experts of a layer lie in one tensor, and this one takes stacks of matrices too. The
update is scaled to the size that AdamW's has, so one learning rate serves both (Moonlight, arXiv 2502.16982, section 2.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration; they bring singular values near 1 in a few steps."""
STEPS = 4
ADAM_SIZE = 0.2
"""Root mean square of AdamW's updates as a share of the learning rate."""


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest matrices [..., m, n] with singular values about 1."""
    a, b, c = COEFFICIENTS
    x: Tensor
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices.bfloat16() if wide else matrices.bfloat16().mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """For parameters [..., m, n]."""

    def __init__(self, parameters: Iterable[Tensor], lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(state["momentum"], group["momentum"])
        size = ADAM_SIZE * max(weight.shape[-2:]) ** 0.5
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(orthogonal(ahead).to(weight.dtype), alpha=-group["lr"] * size)
