"""BYOL, from google-deepmind/deepmind-research: byol/byol_experiment.py, byol/utils.

B rows, D features.
"""

from __future__ import annotations

import math
from copy import deepcopy

import torch
from torch import Tensor, nn

from tests.objectives.transcribed.record import Step, descend, state, values


def byol_steps(
    student: nn.Module,
    predictor: nn.Module,
    batches: list[Tensor],
    *,
    momentum: float,
    total: int,
    lr: float,
) -> list[Step]:
    """`ByolExperiment._update_fn` on plain gradient descent for each batch [2, B, 1, H, W].

    Step k (from 0, byol/main_loop.py, train_loop): the loss (`loss_fn`), the new online
    parameters, then the target moves towards those by 1 - tau(k). The two views go through the
    network one after the other (`_forward`). Left out: the supervised classifier, which reads the
    features without gradient, and the predictor that the target network carries unused. The source
    initialises the target with numbers of its own; here it starts as a copy. Batch norms are
    PyTorch's, whose running variance is the unbiased one.
    """
    student, predictor = deepcopy(student).train(), deepcopy(predictor).train()
    twin = deepcopy(student)
    steps = []
    for k, (view1, view2) in enumerate(batches):
        prediction1 = predictor(student(view1))
        prediction2 = predictor(student(view2))
        with torch.no_grad():
            projection1 = twin(view1)
            projection2 = twin(view2)
        repr_loss_B = _regression_loss(prediction1, projection2)
        repr_loss_B = repr_loss_B + _regression_loss(prediction2, projection1)
        descend(repr_loss_B.mean(), [student, predictor], lr)
        tau = _target_ema(k, momentum, total)
        with torch.no_grad():
            for x, y in zip(twin.parameters(), student.parameters(), strict=True):
                x.copy_(x + (1 - tau) * (y - x))
        terms = values({"repr_loss": repr_loss_B.mean()})
        steps.append(Step(terms, state(student), state(predictor), state(twin)))
    return steps


def _regression_loss(x_BD: Tensor, y_BD: Tensor) -> Tensor:
    """`helpers.regression_loss` [B]: squared distance of the normalised rows."""
    return ((_l2_normalize(x_BD) - _l2_normalize(y_BD)) ** 2).sum(dim=1)


def _l2_normalize(x_BD: Tensor) -> Tensor:
    """`helpers.l2_normalize`, whose epsilon bounds the squared length."""
    return x_BD * torch.rsqrt((x_BD**2).sum(dim=1, keepdim=True).clamp(min=1e-12))


def _target_ema(step: int, base: float, total: int) -> float:
    """`schedules.target_ema`."""
    decay = 0.5 * (1 + math.cos(math.pi * min(step, total) / total))
    return 1.0 - (1.0 - base) * decay
