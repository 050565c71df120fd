"""MICLe (arXiv:2101.05224, no official code) on NT-Xent as google-research/simclr computes it.

B bags, N = 2 B rows, D features.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from tests.objectives.transcribed.record import Step, descend, state, values


def micle_steps(
    student: nn.Module,
    batches: list[Tensor],
    *,
    patients: list[Tensor],
    faithful: bool,
    temperature: float,
    lr: float,
) -> list[Step]:
    """NT-Xent of each batch of pairs [2, B, 1, H, W], row i of both views from bag i.

    Both views go through the network in one batch (model.py, model_fn: tf.concat of the features).
    The loss is the mean over all 2 B rows as in equation 1 of SimCLR (arXiv:2002.05709);
    objective.py, add_contrastive_loss, adds two means over B rows instead: twice this number.
    faithful: every other row is a negative, as published. Otherwise rows of the same patient
    (patients: [B] a batch, 0 unknown) but of another bag leave the denominator.
    """
    student = deepcopy(student).train()
    steps = []
    for views, patients_B in zip(batches, patients, strict=True):
        hidden_ND = normalize(student(torch.cat([views[0], views[1]])), dim=1)
        bags = len(views[0])
        losses = []
        for i in range(2 * bags):
            positive = (i + bags) % (2 * bags)
            candidates = []
            for j in range(2 * bags):
                patient_i, patient_j = int(patients_B[i % bags]), int(patients_B[j % bags])
                same_patient = patient_i == patient_j != 0
                if j == i or (j != positive and same_patient and not faithful):
                    continue
                candidates.append(j)
            logits = torch.stack([torch.dot(hidden_ND[i], hidden_ND[j]) for j in candidates])
            target = torch.tensor([candidates.index(positive)])
            losses.append(cross_entropy(logits[None] / temperature, target))
        loss = torch.stack(losses).mean()
        descend(loss, [student], lr)
        steps.append(Step(values({"nt_xent": loss}), state(student)))
    return steps
