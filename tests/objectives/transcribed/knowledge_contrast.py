"""Radiomics knowledge contrast: arXiv:2104.04968, with VITA-Group/CheXT at 66cf142 where it says
more; focal loss of arXiv:1708.02002, equation 5; Grad-CAM of arXiv:1610.02391, equations 1 and 2;
NT-Xent of arXiv:2002.05709, equation 1. What neither of them says is in the docstring of
`KnowledgeContrast`, and taken from there.

B images, C findings, D features, g side of the last map, F radiomic features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from tests.objectives.transcribed.hot_box import Box, hot_box
from tests.objectives.transcribed.record import Step, descend, state, values
from tests.objectives.transcribed.running_scale import RunningScale

FALLBACK: Box = (24 / 224, 24 / 224, 200 / 224, 200 / 224)


@dataclass(frozen=True)
class Images:
    """A batch: pixels [B, 1, H, W], greys [B, H, W] of the same views, labels [B][C] 1, 0 or NaN.

    boxes: of each image, pairs of a box in pixels (left, top, right, bottom) and its finding.
    """

    pixels: Tensor
    greys: Tensor
    labels: list[list[float]]
    boxes: list[list[tuple[Box, int]]]


@dataclass(frozen=True)
class KnowledgeStep(Step):
    """student: all networks. scale: count, mean and sum of squared deviations [F] of each feature.

    shares: of images whose region is annotated, hot or the fixed one; and with a NaN feature.
    """

    scale: dict[str, Tensor] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)


def knowledge_steps(
    nets: nn.ModuleDict,
    batches: list[Images],
    *,
    measure: Callable[[Tensor, Tensor], Tensor],
    scale: RunningScale,
    regions: Literal["heat", "annotated", "central"] = "heat",
    every: int = 1,
    start: int = 0,
    threshold: float = 0.5,
    alpha: float = 0.25,
    gamma: float = 2.0,
    focal_weight: float = 0.7,
    contrast_weight: float = 0.3,
    temperature: float = 0.5,
    lr: float,
) -> list[KnowledgeStep]:
    """A gradient step for each batch.

    nets: `map` of pixels to [B, D, g, g], `head` from its mean over places to features [B, D],
    `classifier` and `projector` of features, `radiomic` of F numbers, `radiomic_projector` of what
    that gives. measure(greys, inside): the F radiomic features of a picture's pixels that are
    `inside`; numbers, for nothing of them is learned.
    """
    nets, scale = deepcopy(nets).train(), deepcopy(scale)
    steps = []
    for number, batch in enumerate(batches):
        map_BDgg = nets["map"](batch.pixels)
        features_BD = nets["head"](map_BDgg.mean((2, 3)))
        logits_BC = nets["classifier"](features_BD)
        focal = _focal(logits_BC, batch.labels, alpha, gamma)
        terms, shares = {"focal": focal_weight * focal}, {}
        if contrast_weight > 0 and number >= start and (number - start) % every == 0:
            rows, origins = [], []
            for i, greys_HW in enumerate(batch.greys):
                box, origin = _region(nets, map_BDgg[i], logits_BC[i], batch, i, regions, threshold)
                rows.append(measure(greys_HW, _inside(box, greys_HW.shape)).tolist())
                origins.append(origin)
            shares = {name: origins.count(name) / len(origins) for name in _ORIGINS}
            shares["nan"] = sum(any(map(math.isnan, row)) for row in rows) / len(rows)
            scale.take(rows)
            scaled_BF = torch.tensor([scale.scaled(row) for row in rows], dtype=torch.float64)
            image = nets["projector"](features_BD)
            radiomic = nets["radiomic_projector"](nets["radiomic"](scaled_BF))
            terms["contrast"] = contrast_weight * _nt_xent(image, radiomic, temperature)
        elif contrast_weight > 0:
            everything = torch.cat([p.flatten() for p in nets.parameters()])
            terms["contrast"] = 0 * everything.sum()
        loss = torch.stack(list(terms.values())).sum()
        descend(loss, [nets], lr)
        steps.append(
            KnowledgeStep(values(terms), state(nets), scale=scale.numbers(), shares=shares)
        )
    return steps


_ORIGINS = ("annotated", "heat", "fallback")


def _focal(logits_BC: Tensor, labels: list[list[float]], alpha: float, gamma: float) -> Tensor:
    """-a (1 - p)^gamma log p of every known element; their mean, 0 if none is known."""
    lost, known = 0 * logits_BC.sum(), 0
    for logits_C, labels_C in zip(logits_BC, labels, strict=True):
        for logit, label in zip(logits_C, labels_C, strict=True):
            if math.isnan(label):
                continue
            known += 1
            p = 1 / (1 + torch.exp(-logit))
            if label == 1:
                lost = lost - alpha * (1 - p) ** gamma * torch.log(p)
            else:
                lost = lost - (1 - alpha) * p**gamma * torch.log(1 - p)
    return lost / max(known, 1)


def _region(
    nets: nn.ModuleDict,
    map_Dgg: Tensor,
    logits_C: Tensor,
    batch: Images,
    image: int,
    regions: str,
    threshold: float,
) -> tuple[Box, str]:
    """The largest box of the driving finding, else the largest, else that of its heat map."""
    height, width = batch.greys[image].shape
    fixed = (FALLBACK[0] * width, FALLBACK[1] * height, FALLBACK[2] * width, FALLBACK[3] * height)
    if regions == "central":
        return fixed, "fallback"
    driving = _driving(logits_C.tolist(), batch.labels[image])
    boxes = [(box, finding) for box, finding in batch.boxes[image] if _area(box) > 0]
    of_driving = [(box, finding) for box, finding in boxes if finding == driving]
    if boxes:
        largest, _ = max(of_driving or boxes, key=lambda pair: _area(pair[0]))
        return largest, "annotated"
    if regions == "annotated":
        return fixed, "fallback"
    found = hot_box(_grad_cam(nets, map_Dgg, driving), (height, width), threshold)
    return (fixed, "fallback") if found is None else (found, "heat")


def _driving(logits: Sequence[float], labels: Sequence[float]) -> int:
    """The most probable of the findings that are known to be present, without one that of all."""
    present = [c for c, label in enumerate(labels) if label == 1]
    return max(present or range(len(logits)), key=lambda c: logits[c])


def _grad_cam(nets: nn.ModuleDict, map_Dgg: Tensor, finding: int) -> list[list[float]]:
    """[g][g]: channels, each by the mean over places of what the finding's logit makes of it."""
    copy = map_Dgg.detach().clone().requires_grad_()
    logit = nets["classifier"](nets["head"](copy.mean((1, 2))[None]))[0, finding]
    (gradient_Dgg,) = torch.autograd.grad(logit, copy)
    heat = torch.zeros(map_Dgg.shape[1:]).double()
    for channel in range(len(map_Dgg)):
        heat += gradient_Dgg[channel].mean() * map_Dgg[channel].detach()
    found: list[list[float]] = heat.tolist()
    return found


def _area(box: Box) -> float:
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


def _inside(box: Box, shape: Sequence[int]) -> Tensor:
    """[H, W] bool: the pixels whose centres are in the box."""
    left, top, right, bottom = box
    rows = [[left <= x + 0.5 < right for x in range(shape[1])] for _ in range(shape[0])]
    for y in range(shape[0]):
        if not top <= y + 0.5 < bottom:
            rows[y] = [False] * shape[1]
    return torch.tensor(rows)


def _nt_xent(image_BD: Tensor, radiomic_BD: Tensor, temperature: float) -> Tensor:
    """Every row of both kinds has one positive; all other rows of both kinds are negatives."""
    count = len(image_BD)
    rows = [row / torch.sqrt((row**2).sum()) for row in [*image_BD, *radiomic_BD]]
    lost = []
    for i in range(2 * count):
        positive = (i + count) % (2 * count)
        others = [j for j in range(2 * count) if j != i]
        logits = {j: torch.dot(rows[i], rows[j]) / temperature for j in others}
        total = sum((torch.exp(logits[j]) for j in others), start=torch.zeros(()).double())
        lost.append(torch.log(total) - logits[positive])
    return torch.stack(lost).mean()
