"""Barlow Twins, from facebookresearch/barlowtwins: main.py.

B rows, D features.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from tests.objectives.transcribed.record import Step, descend, state, values


def barlow_twins_steps(
    student: nn.Module, batches: list[Tensor], *, lambd: float, lr: float
) -> list[Step]:
    """`BarlowTwins.forward` on plain gradient descent for each batch [2, B, 1, H, W].

    On one process, where nothing is reduced. Left out: the running statistics of the batch norm
    behind the projector, which nothing reads.
    """
    student = deepcopy(student).train()
    steps = []
    for y1, y2 in batches:
        z1_BD, z2_BD = student(y1), student(y2)
        c_DD = _bn(z1_BD).T @ _bn(z2_BD) / len(y1)
        on_diag, off_diag = z1_BD.new_zeros(()), z1_BD.new_zeros(())
        for i in range(len(c_DD)):
            for j in range(len(c_DD)):
                if i == j:
                    on_diag = on_diag + (c_DD[i, i] - 1) ** 2
                else:
                    off_diag = off_diag + c_DD[i, j] ** 2
        descend(on_diag + lambd * off_diag, [student], lr)
        steps.append(
            Step(values({"on_diag": on_diag, "off_diag": lambd * off_diag}), state(student))
        )
    return steps


def _bn(z_BD: Tensor) -> Tensor:
    """`nn.BatchNorm1d(D, affine=False)` in training: the biased variance, and 1e-5."""
    mean_D = z_BD.sum(0) / len(z_BD)
    var_D = ((z_BD - mean_D) ** 2).sum(0) / len(z_BD)
    return (z_BD - mean_D) / torch.sqrt(var_D + 1e-5)


def lars_steps(
    p: Tensor,
    gradients: list[Tensor],
    factors: list[float],
    *,
    lr_weights: float,
    lr_biases: float,
    weight_decay: float,
) -> list[Tensor]:
    """`LARS.step` on one parameter, after each gradient; a vector is a bias or of a norm.

    factors: `lr` of `adjust_learning_rate`, which multiplies both rates.
    """
    adapts, mu, seen = p.ndim != 1, torch.zeros_like(p), []
    for gradient, lr in zip(gradients, factors, strict=True):
        dp = gradient
        if adapts:
            decayed = gradient + weight_decay * p
            dp = decayed * (0.001 * p.norm() / decayed.norm())
        mu = 0.9 * mu + dp
        p = p - lr * (lr_weights if adapts else lr_biases) * mu
        seen.append(p)
    return seen
