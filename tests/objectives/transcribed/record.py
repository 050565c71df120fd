"""What a transcription remembers of each step, and the plainest gradient descent.

The transcriptions beside this file are written from the cited sources alone and share no code with
`lightning_rad`: they are what its objectives are held against.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Step:
    """After one step: its loss terms, and everything that the next step starts from.

    student, predictor, twin: parameters and buffers by name. queue_KD, pointer: None without one.
    """

    terms: dict[str, float]
    student: dict[str, Tensor]
    predictor: dict[str, Tensor] = field(default_factory=dict)
    twin: dict[str, Tensor] = field(default_factory=dict)
    queue_KD: Tensor | None = None
    pointer: int | None = None


def state(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def values(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(term.detach()) for name, term in terms.items()}


def descend(loss: Tensor, modules: list[nn.Module], lr: float) -> None:
    """p <- p - lr * dloss/dp, without momentum or decay."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.sub_(lr * gradient)
