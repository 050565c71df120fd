"""A small knowledge contrast, and batches with findings, boxes and greys for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from lightning_rad.modalities.evidence import FindingReading
from lightning_rad.modalities.radiomics import FEATURES
from lightning_rad.nn.projector import Projector
from lightning_rad.nn.radiomic_encoder import RadiomicEncoder
from lightning_rad.objectives.knowledge_contrast import KnowledgeContrast
from lightning_rad.objectives.knowledge_settings import (
    Feedback,
    FindingSide,
    KnowledgePairs,
    RadiomicSide,
)
from lightning_rad.schema import Findings, ViewBatch

NAMES = ("edema", "mass", "nodule")


class PlacesEncoder(nn.Module):
    """One convolution, whose places are the patches and their mean, or normed mean, the features.

    averages False: a norm stands behind the mean, and heat is true Grad-CAM.
    """

    out_features = 8

    def __init__(self, norm: str = "none", *, averages: bool = True) -> None:
        super().__init__()
        self.averages = averages
        batch = nn.BatchNorm2d(8) if norm == "batch" else nn.Identity()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), batch, nn.GELU())
        self.head = nn.Identity() if averages else nn.LayerNorm(8)
        self.dropout = nn.Dropout(0.0)

    def forward(self, images: Tensor, tokens: bool = False) -> Any:
        """Features [B, 8], and with `tokens` the places [B, P, 8]."""
        places = self.dropout(self.layers(images)).flatten(2).mT
        features = self.head(places.mean(1))
        return (features, places) if tokens else features

    def sensitivity(self, tokens: Tensor, direction: Tensor) -> Tensor:
        """As of the real one."""
        with torch.enable_grad():
            copy = tokens.detach().clone().requires_grad_()
            score = (self.head(copy.mean(1)) * direction).sum()
            return torch.autograd.grad(score, copy)[0].mean(1)


def knowledge_contrast(norm: str = "none", **changes: Any) -> KnowledgeContrast:
    """In float64; the running statistics have seen some rows, for tests in evaluation mode.

    changes: averages, findings (of FindingSide), feedback, contrast; the rest of the constructor.
    """
    torch.manual_seed(0)
    head = partial(Projector, layers=1, out_features=8, norm="none", ending="linear")
    radiomic = RadiomicSide(
        encoder=partial(RadiomicEncoder, width=16),
        projector=head,
        feedback=Feedback(**changes.pop("feedback", {})),
    )
    objective = KnowledgeContrast(
        PlacesEncoder(norm, averages=changes.pop("averages", True)),  # type: ignore[arg-type]
        findings=FindingSide(reading=FindingReading(names=NAMES), **changes.pop("findings", {})),
        projector=head,
        radiomic=radiomic,
        contrast=KnowledgePairs(**changes.pop("contrast", {})),
        optimizer=changes.pop("optimizer", lambda groups: torch.optim.SGD(groups, lr=0.1)),
        **changes,
    ).double()
    if objective.contrast.weight > 0:
        generator = torch.Generator().manual_seed(5)
        scale = 10.0 ** torch.randint(0, 3, (len(FEATURES),), generator=generator)
        rows = torch.randn(32, len(FEATURES), generator=generator, dtype=torch.float64) * scale
        objective.z_score.update(rows)
    return objective


def with_evidence(
    batches: Sequence[ViewBatch],
    *,
    known: float = 0.7,
    boxed: Sequence[int] = (0, 3),
    seed: int = 4,
) -> list[ViewBatch]:
    """The batches' first views with blotchy greys, labels of which a share is known, and boxes.

    boxed: rows of each batch with two boxes; others have none.
    """
    generator = torch.Generator().manual_seed(seed)
    made = []
    for batch in batches:
        views = batch.views[:1]
        rows, side = views.shape[1], views.shape[-1]
        coarse = 255 * torch.rand(rows, 1, 6, 6, generator=generator)
        greys = interpolate(coarse, (side, side), mode="bilinear").to(torch.uint8)[None]
        labels = torch.randint(0, 2, (1, rows, 3), generator=generator).double()
        labels[torch.rand(1, rows, 3, generator=generator) >= known] = math.nan
        boxes = torch.full((1, rows, 2, 4), math.nan)
        finding = torch.full((1, rows, 2), -1)
        for row in boxed:
            boxes[0, row] = torch.tensor([[2, 3, 8, 9], [5, 5, 14, 15]]) * (side / 16)
            finding[0, row] = torch.tensor([row % 3, (row + 1) % 3])
        evidence = Findings(labels.to(views.dtype), boxes, finding)
        image = batch.image[:1]
        made.append(replace(batch, views=views, image=image, findings=evidence, greys=greys))
    return made
