"""A predictor of gaze, step 2 of FocusContrast (arXiv:2305.08826).

The paper gives neither network nor loss; the two terms are those that `GazePredictor` says of
itself: the Kullback-Leibler divergence and Pearson's correlation, as in the benchmark of Bylinskii
et al. (arXiv:1604.03605, sections 4.1 and 4.2). S side of a map.
"""

from __future__ import annotations

import math
from copy import deepcopy

import torch
from torch import Tensor, nn

from tests.objectives.transcribed.record import Step, descend, state, values


def gaze_steps(
    scores: nn.Module,
    batches: list[Tensor],
    *,
    maps: list[Tensor],
    correlation: float,
    lr: float,
) -> list[Step]:
    """A gradient step for each batch [V, B, 1, H, W] with its maps [V, B, S, S].

    scores(images): [B, S, S]. A map of a view that nobody looked at is all 0: it costs nothing, and
    is no part of the means. correlation: weight of the second term.
    """
    scores = deepcopy(scores).train()
    steps = []
    for views, maps_VBSS in zip(batches, maps, strict=True):
        divergences, distances = [], []
        rest = torch.zeros(()).double()
        for view, maps_BSS in zip(views, maps_VBSS, strict=True):
            for scores_SS, map_SS in zip(scores(view), maps_BSS, strict=True):
                rest = rest + 0 * scores_SS.sum()
                if float(map_SS.sum()) == 0:
                    continue
                cells, recorded = list(scores_SS.flatten()), map_SS.flatten().tolist()
                whole = torch.log(torch.stack([torch.exp(cell) for cell in cells]).sum())
                log_p = [cell - whole for cell in cells]
                divergences.append(_divergence(recorded, log_p))
                distances.append(1 - _pearson([torch.exp(x) for x in log_p], recorded))
        looked = max(len(divergences), 1)
        terms = {
            "kl": sum(divergences, start=rest) / looked,
            "correlation": correlation * sum(distances, start=rest) / looked,
        }
        descend(terms["kl"] + terms["correlation"], [scores], lr)
        steps.append(Step(values(terms), state(scores)))
    return steps


def _divergence(recorded: list[float], log_p: list[Tensor]) -> Tensor:
    """sum of q log(q / p) over cells."""
    lost = torch.zeros(()).double()
    for q, log_of_p in zip(recorded, log_p, strict=True):
        if q > 0:
            lost = lost + q * (math.log(q) - log_of_p)
    return lost


def _pearson(p: list[Tensor], q: list[float]) -> Tensor:
    """Covariance over the product of standard deviations."""
    mean_p, mean_q = torch.stack(p).mean(), sum(q) / len(q)
    together = torch.stack([(a - mean_p) * (b - mean_q) for a, b in zip(p, q, strict=True)]).sum()
    squares_p = torch.stack([(a - mean_p) ** 2 for a in p]).sum()
    squares_q = sum((b - mean_q) ** 2 for b in q)
    return together / (torch.sqrt(squares_p) * math.sqrt(squares_q))
