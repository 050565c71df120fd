"""Image-report contrast: CLIP, ConVIRT and SigLIP.

CLIP, arXiv:2103.00020, figure 3 and section 2.5; ConVIRT, arXiv:2010.00747, equations 2 to 4;
SigLIP, arXiv:2303.15343, algorithm 1. V views, B units, N = V B pairs, D features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from tests.objectives.transcribed.descent import Descent
from tests.objectives.transcribed.record import Step, state, values

Form = Literal["clip", "convirt", "siglip"]


@dataclass(frozen=True)
class ImageReportStep(Step):
    """student: the image side. text: the other. learned: `log_scale` (and `bias`), if any.

    parts: the directions of a softmax form, positive and negative pairs of the sigmoid, and the
    temperature that this step's loss was computed with.
    """

    text: dict[str, Tensor] = field(default_factory=dict)
    learned: dict[str, Tensor] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)


def image_report_steps(
    image: nn.Module,
    text: nn.Module,
    batches: list[Tensor],
    *,
    texts: list[Tensor],
    hashes: list[Tensor],
    form: Form,
    temperature: float,
    learned: bool,
    bias: float = -10.0,
    image_share: float | None = None,
    largest_scale: float | None = 100.0,
    held: Literal["after", "in forward"] = "after",
    faithful: bool = False,
    lr: float,
    text_lr: float | None = None,
    momentum: float = 0.0,
    clip: float | None = None,
    factors: Sequence[float] | None = None,
) -> list[ImageReportStep]:
    """A gradient step for each batch [V, B, 1, H, W] with its reports' tokens [B, T].

    image(images), text(tokens): [B, D] of both sides, projection included, not of unit length.
    hashes: [B], equal for units of one text; such a pair is neither positive nor negative unless
    `faithful`. With more than one view every view is a row whose text is its unit's, all rows of
    one unit are each other's positives (their mean, for the softmax forms).

    learned: the logarithm of the scale 1 / temperature (t in CLIP, t' in SigLIP), and SigLIP's
    bias, are parameters at the rate `lr`. image_share: weight of image to text, without it the
    source's: 0.5 (CLIP), lambda 0.75 (ConVIRT). largest_scale: CLIP bounds the factor of the logits
    by 100, by setting the parameter back after a step or by reading it bounded; None: no bound, as
    in SigLIP.
    """
    image, text = deepcopy(image).train(), deepcopy(text).train()
    numbers = {"log_scale": torch.tensor(math.log(1 / temperature), dtype=torch.float64)}
    if form == "siglip":
        numbers["bias"] = torch.tensor(bias, dtype=torch.float64)
    for number in numbers.values():
        number.requires_grad_(learned)
    trained = dict(numbers)
    trained |= {f"image.{name}": p for name, p in image.named_parameters()}
    trained |= {f"text.{name}": p for name, p in text.named_parameters()}
    text_lr = lr if text_lr is None else text_lr
    rates = {name: text_lr if name.startswith("text.") else lr for name in trained}
    descent = Descent(trained, rates, momentum=momentum, clip=clip)
    if image_share is None:
        image_share = 0.75 if form == "convirt" else 0.5
    steps = []
    for k, views in enumerate(batches):
        image_ND = _unit_rows(torch.cat([image(view) for view in views]))
        text_BD = _unit_rows(text(texts[k]))
        text_ND = torch.cat([text_BD for _ in views])
        units = [i for _ in views for i in range(len(text_BD))]
        relation = _relations(units, hashes[k].tolist(), faithful=faithful)
        log_scale = numbers["log_scale"]
        if largest_scale is not None and held == "in forward":
            log_scale = log_scale.clamp(max=math.log(largest_scale))
        scale = torch.exp(log_scale)
        if form == "siglip":
            parts = _siglip(image_ND, text_ND, relation, scale, numbers["bias"])
            contrast = parts["positive"] + parts["negative"]
        else:
            parts = _softmax(image_ND, text_ND, relation, scale)
            contrast = image_share * parts["image_to_text"]
            contrast = contrast + (1 - image_share) * parts["text_to_image"]
        parts["temperature"] = 1 / scale
        found, used = values({"contrast": contrast}), values(parts)
        descent.step(contrast, 1.0 if factors is None else factors[k])
        if learned and largest_scale is not None and held == "after":
            with torch.no_grad():
                numbers["log_scale"].clamp_(max=math.log(largest_scale))
        kept = {name: value.detach().clone() for name, value in numbers.items() if learned}
        steps.append(
            ImageReportStep(found, state(image), text=state(text), learned=kept, parts=used)
        )
    return steps


def _relations(units: list[int], hashes: list[int], *, faithful: bool) -> list[list[int]]:
    """[N][N]: 1 for rows of one unit, 0 for units of one text, which do not count, else -1."""
    table = []
    for a in units:
        row = []
        for b in units:
            if a == b:
                row.append(1)
            elif hashes[a] == hashes[b] and not faithful:
                row.append(0)
            else:
                row.append(-1)
        table.append(row)
    return table


def _softmax(
    image_ND: Tensor, text_ND: Tensor, relation: list[list[int]], scale: Tensor
) -> dict[str, Tensor]:
    """Cross-entropy along both axes (CLIP), the two sums of ConVIRT's equations 2 and 3."""
    images, texts = [], []
    for i in range(len(image_ND)):
        images.append(_row_loss(image_ND[i], text_ND, relation[i], scale))
        texts.append(_row_loss(text_ND[i], image_ND, relation[i], scale))
    return {"image_to_text": torch.stack(images).mean(), "text_to_image": torch.stack(texts).mean()}


def _row_loss(x_D: Tensor, others_ND: Tensor, relation: list[int], scale: Tensor) -> Tensor:
    own, all_counted = [], []
    for other_D, related in zip(others_ND, relation, strict=True):
        if related == 0:
            continue
        logit = scale * torch.dot(x_D, other_D)
        all_counted.append(logit)
        if related == 1:
            own.append(logit)
    total = torch.logsumexp(torch.stack(all_counted), 0)
    return torch.stack([total - logit for logit in own]).mean()


def _siglip(
    image_ND: Tensor, text_ND: Tensor, relation: list[list[int]], scale: Tensor, bias: Tensor
) -> dict[str, Tensor]:
    """-log sigmoid(label * logit) of every pair that counts, over the number of images."""
    rows = len(image_ND)
    lost = {1: image_ND.new_zeros(()), -1: image_ND.new_zeros(())}
    for i in range(rows):
        for j in range(rows):
            label = relation[i][j]
            if label != 0:
                logit = scale * torch.dot(image_ND[i], text_ND[j]) + bias
                lost[label] = lost[label] + torch.log1p(torch.exp(-label * logit))
    return {"positive": lost[1] / rows, "negative": lost[-1] / rows}


def _unit_rows(x_BD: Tensor) -> Tensor:
    return torch.stack([x_D / torch.sqrt((x_D**2).sum()) for x_D in x_BD])
