"""MoCo v3, from facebookresearch/moco-v3, moco/builder.py (MoCo) and main_moco.py (train).

B rows, D features.
"""

from __future__ import annotations

import math
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from tests.objectives.transcribed.record import Step, descend, state, values


def moco_v3_steps(
    student: nn.Module,
    predictor: nn.Module,
    batches: list[Tensor],
    *,
    temperature: float,
    momentum: float,
    total: int,
    lr: float,
) -> list[Step]:
    """`MoCo.forward` and a plain gradient step for each batch [2, B, 1, H, W].

    The momentum is that of the iteration about to run (`train` calls `adjust_moco_momentum` with
    epoch + i / iters_per_epoch, here i / total of the run) and is applied inside the forward,
    after the queries and before the keys. `Step.twin` is the momentum encoder as the forward that
    follows will use it. The predictor has no twin (`_update_momentum_encoder`).
    """
    student, predictor = deepcopy(student).train(), deepcopy(predictor).train()
    twin = deepcopy(student)
    steps = []
    for i, (x1, x2) in enumerate(batches):
        q1 = predictor(student(x1))
        q2 = predictor(student(x2))
        with torch.no_grad():
            _update(twin, student, _momentum(i, total, momentum))
            k1 = twin(x1)
            k2 = twin(x2)
        loss = _contrastive_loss(q1, k2, temperature) + _contrastive_loss(q2, k1, temperature)
        descend(loss, [student, predictor], lr)
        following = deepcopy(twin)
        _update(following, student, _momentum(i + 1, total, momentum))
        terms = values({"loss": loss})
        steps.append(Step(terms, state(student), state(predictor), state(following)))
    return steps


def _contrastive_loss(q_BD: Tensor, k_BD: Tensor, temperature: float) -> Tensor:
    """`MoCo.contrastive_loss` in one process: the label of row i is i, the loss times 2 T."""
    q_BD, k_BD = normalize(q_BD, dim=1), normalize(k_BD, dim=1)
    losses = []
    for i, q_D in enumerate(q_BD):
        logits = torch.stack([torch.dot(q_D, k_D) for k_D in k_BD]) / temperature
        losses.append(cross_entropy(logits[None], torch.tensor([i])))
    return torch.stack(losses).mean() * (2 * temperature)


def _momentum(i: int, total: int, base: float) -> float:
    """`adjust_moco_momentum`."""
    return 1.0 - 0.5 * (1.0 + math.cos(math.pi * i / total)) * (1.0 - base)


@torch.no_grad()
def _update(twin: nn.Module, student: nn.Module, momentum: float) -> None:
    """`_update_momentum_encoder`."""
    for m, b in zip(twin.parameters(), student.parameters(), strict=True):
        m.copy_(m * momentum + b * (1.0 - momentum))
