"""VICReg, from facebookresearch/vicreg: main_vicreg.py.

B rows, D features.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from tests.objectives.transcribed.record import Step, descend, state, values


def vicreg_steps(
    student: nn.Module,
    batches: list[Tensor],
    *,
    sim_coeff: float,
    std_coeff: float,
    cov_coeff: float,
    lr: float,
) -> list[Step]:
    """`VICReg.forward` on plain gradient descent for each batch [2, B, 1, H, W]."""
    student = deepcopy(student).train()
    steps = []
    for first, second in batches:
        x_BD, y_BD = student(first), student(second)
        repr_loss = ((x_BD - y_BD) ** 2).sum() / x_BD.numel()
        std_loss = _std(x_BD) / 2 + _std(y_BD) / 2
        cov_loss = _cov(x_BD) + _cov(y_BD)
        terms = {
            "sim": sim_coeff * repr_loss,
            "std": std_coeff * std_loss,
            "cov": cov_coeff * cov_loss,
        }
        descend(terms["sim"] + terms["std"] + terms["cov"], [student], lr)
        steps.append(Step(values(terms), state(student)))
    return steps


def _std(x_BD: Tensor) -> Tensor:
    """`torch.mean(F.relu(1 - std_x))`, feature by feature."""
    loss = x_BD.new_zeros(())
    for x_B in x_BD.T:
        var = ((x_B - x_B.mean()) ** 2).sum() / (len(x_B) - 1)
        loss = loss + torch.relu(1 - torch.sqrt(var + 0.0001))
    return loss / x_BD.shape[1]


def _cov(x_BD: Tensor) -> Tensor:
    """`off_diagonal(cov_x).pow_(2).sum().div(num_features)`, pair by pair."""
    batch, features = x_BD.shape
    x_BD = x_BD - x_BD.mean(0)
    loss = x_BD.new_zeros(())
    for i in range(features):
        for j in range(features):
            if i != j:
                loss = loss + ((x_BD[:, i] * x_BD[:, j]).sum() / (batch - 1)) ** 2
    return loss / features
