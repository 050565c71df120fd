"""C2L, from funnyzhou/C2L_MICCAI2020: train_C2L_res18.py, NCE/NCEAverage.py, NCE/NCECriterion.py.

B rows, D features, K keys.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.objectives.transcribed.record import Step, descend, state, values


def c2l_steps(
    student: nn.Module,
    batches: list[Tensor],
    *,
    lambdas: list[float],
    permutations: list[Tensor],
    queue_KD: Tensor,
    temperature: float,
    momentum: float,
    lr: float,
    nce_data: int | None = None,
) -> list[Step]:
    """`train_C2L` on plain gradient descent for each batch [2, B, 1, H, W].

    Order of the source: x1 and x2 through student and teacher, the first call of the memory
    (which takes its keys in), the mixtures (`mixup_data`, one lambda of at least 0.5 and one
    permutation for pixels of both views and for raw features), the mixed pixels through student
    and teacher, normalisation, the second and the third call, a third of the sum. The teacher is in
    evaluation but for its batch norms; `get_shuffle_ids` changes nothing in one process. After the
    step `moment_update` averages parameters alone. nce_data: without it `NCESoftmaxLoss`
    (--softmax), with it `NCECriterion` for that number of images.
    """
    student = deepcopy(student).train()
    teacher = deepcopy(student).eval()
    for module in teacher.modules():
        if "BatchNorm" in type(module).__name__:
            module.train()
    memory = _Memory(queue_KD, temperature, nce_data)
    steps = []
    for (x1, x2), drawn, index in zip(batches, lambdas, permutations, strict=True):
        feat_q = student(x1)
        with torch.no_grad():
            feat_k = teacher(x2)
        plain = memory.criterion(memory(_normalize(feat_q), _normalize(feat_k)))
        lam = max(drawn, 1 - drawn)
        mixed_x1 = lam * x1 + (1 - lam) * x1[index]
        mixed_x2 = lam * x2 + (1 - lam) * x2[index]
        mixed_feat_k = lam * feat_k + (1 - lam) * feat_k[index]
        q_of_mixed = student(mixed_x1)
        with torch.no_grad():
            k_of_mixed = teacher(mixed_x2)
        query = _normalize(q_of_mixed)
        mixed = memory.criterion(memory(query, _normalize(k_of_mixed)))
        features = memory.criterion(memory(query, _normalize(mixed_feat_k)))
        terms = {"plain": plain / 3.0, "mixed": mixed / 3.0, "features": features / 3.0}
        descend((plain + mixed + features) / 3.0, [student], lr)
        with torch.no_grad():
            for p2, p1 in zip(teacher.parameters(), student.parameters(), strict=True):
                p2.copy_(momentum * p2 + (1 - momentum) * p1)
        queue, pointer = memory.queue_KD.clone(), memory.index
        steps.append(
            Step(
                values(terms), state(student), twin=state(teacher), queue_KD=queue, pointer=pointer
            )
        )
    return steps


class _Memory:
    """`MemoryC2L` and the two criteria.

    Not taken over: the integer buffer that truncates Z, and the missing eps (1e-7 in
    HobbitLong/CMC, from which the file comes).
    """

    def __init__(self, queue_KD: Tensor, temperature: float, nce_data: int | None) -> None:
        self.queue_KD, self.index = queue_KD.clone(), 0
        self._temperature, self._data = temperature, nce_data
        self._Z: float | None = None

    def __call__(self, q_BD: Tensor, k_BD: Tensor) -> Tensor:
        """[B, 1 + K] of the queue before these keys are in it; then they are."""
        queue_KD = self.queue_KD.clone()
        rows = []
        for q_D, k_D in zip(q_BD, k_BD, strict=True):
            negatives = [torch.dot(q_D, key_D) for key_D in queue_KD]
            rows.append(torch.stack([torch.dot(q_D, k_D), *negatives]))
        out = torch.stack(rows) / self._temperature
        if self._data is not None:
            out = torch.exp(out)
            if self._Z is None:
                self._Z = float(out.detach().mean()) * self._data
            out = out / self._Z
        for k_D in k_BD:
            self.queue_KD[self.index] = k_D
            self.index = (self.index + 1) % len(self.queue_KD)
        return out

    def criterion(self, out: Tensor) -> Tensor:
        if self._data is None:
            return cross_entropy(out, torch.zeros(len(out), dtype=torch.int64))
        rows, noise = len(out), (out.shape[1] - 1) * (1 / float(self._data))
        positive, negative = out[:, 0], out[:, 1:]
        log_d1 = torch.log(positive / (positive + noise + 1e-7))
        log_d0 = torch.log(noise / (negative + noise + 1e-7))
        return -(log_d1.sum() + log_d0.sum()) / rows


def _normalize(x_BD: Tensor) -> Tensor:
    """`Normalize`, without an epsilon."""
    return x_BD / x_BD.pow(2).sum(1, keepdim=True).pow(0.5)
