"""Weighted nearest neighbours on normalised features, voting on several findings at once.

A query's score for a finding is the mean label of its k nearest rows of the bank, weighted by
exp(cosine similarity / temperature), over those neighbours whose label for it is known (Wu et
al., "Unsupervised feature learning via non-parametric instance discrimination", CVPR 2018,
section 3.4, made soft and multi-label).

Shapes: M bank rows, Q queries, D features, C findings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

_QUERIES_AT_ONCE = 1024


@dataclass(frozen=True)  # no slots: jsonargparse reads defaults with vars()
class NearestNeighbours:
    """How many neighbours vote, and how fast a vote fades with distance.

    Args:
        k: Neighbours that vote, at least 1; a bank with fewer rows votes with all of them.
        temperature: Unit of cosine similarity, above 0; smaller listens to the nearest only.
    """

    k: int = 20
    temperature: float = 0.07

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"knn.k must be 1 or more, not {self.k}")
        if not 0.0 < self.temperature < math.inf:
            raise ValueError(f"knn.temperature must be above 0 and finite, not {self.temperature}")

    def scores(self, bank_MD: Tensor, labels_MC: Tensor, queries_QD: Tensor) -> Tensor:
        """The vote [Q, C], float64, on the device of the bank.

        labels_MC: 1, 0, or NaN where unknown. Where no neighbour's label is known the vote is the
        finding's share of positives in the bank; NaN where no row of the bank is labelled.
        Similarities are float64, so the result does not depend on a matmul precision setting.
        """
        known_MC = ~labels_MC.isnan()
        labels_MC = labels_MC.double().nan_to_num(0.0)
        prevalence_C = labels_MC.sum(0) / known_MC.sum(0)
        if not len(bank_MD):
            return prevalence_C.expand(len(queries_QD), -1)
        bank_MD = normalize(bank_MD.double(), dim=1)
        votes = [
            self._vote(normalize(part.double(), dim=1), bank_MD, labels_MC, known_MC, prevalence_C)
            for part in torch.split(queries_QD, _QUERIES_AT_ONCE)
        ]
        return torch.cat(votes)

    def _vote(
        self,
        queries_QD: Tensor,
        bank_MD: Tensor,
        labels_MC: Tensor,
        known_MC: Tensor,
        else_C: Tensor,
    ) -> Tensor:
        nearest = (queries_QD @ bank_MD.T).topk(min(self.k, len(bank_MD)), dim=1)
        # relative to the nearest one: the same ratios, and no overflow at small temperatures
        closeness = (nearest.values - nearest.values[:, :1]) / self.temperature
        weight_QkC = closeness.exp()[:, :, None] * known_MC[nearest.indices]
        total_QC = weight_QkC.sum(1)
        vote_QC = (weight_QkC * labels_MC[nearest.indices]).sum(1) / total_QC
        return torch.where(total_QC == 0, else_C, vote_QC)
