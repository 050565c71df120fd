"""MoCo v1 and v2, from facebookresearch/moco, moco/builder.py, class MoCo.

B rows, D features, K keys.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from tests.objectives.transcribed.record import Step, descend, state, values


def moco_steps(
    student: nn.Module,
    batches: list[Tensor],
    *,
    queue_KD: Tensor,
    temperature: float,
    momentum: float,
    lr: float,
) -> list[Step]:
    """`MoCo.forward` and a plain gradient step for each batch [2, B, 1, H, W], view 0 the query.

    `_momentum_update_key_encoder` runs inside the forward, before the keys. `Step.twin` is the key
    encoder as the forward that follows will use it, with that update. `_batch_shuffle_ddp` only
    decides which rows share batch statistics and does nothing in one process; the key encoder is
    in training mode as its model is. Initial copy: `MoCo.__init__`.
    """
    student = deepcopy(student).train()
    twin = deepcopy(student)
    queue_KD, pointer = queue_KD.clone(), 0
    steps = []
    for views in batches:
        q_BD = normalize(student(views[0]), dim=1)
        with torch.no_grad():
            _momentum_update(twin, student, momentum)
            k_BD = normalize(twin(views[1]), dim=1)
        rows = []
        for q_D, k_D in zip(q_BD, k_BD, strict=True):
            negatives = [torch.dot(q_D, key_D) for key_D in queue_KD.clone()]
            rows.append(torch.stack([torch.dot(q_D, k_D), *negatives]))
        logits = torch.stack(rows) / temperature
        loss = cross_entropy(logits, torch.zeros(len(rows), dtype=torch.int64))
        for k_D in k_BD:  # _dequeue_and_enqueue
            queue_KD[pointer] = k_D
            pointer = (pointer + 1) % len(queue_KD)
        descend(loss, [student], lr)
        following = deepcopy(twin)
        _momentum_update(following, student, momentum)
        terms = values({"info_nce": loss})
        steps.append(
            Step(
                terms,
                state(student),
                twin=state(following),
                queue_KD=queue_KD.clone(),
                pointer=pointer,
            )
        )
    return steps


@torch.no_grad()
def _momentum_update(twin: nn.Module, student: nn.Module, momentum: float) -> None:
    for k, q in zip(twin.parameters(), student.parameters(), strict=True):
        k.copy_(momentum * k + (1.0 - momentum) * q)
