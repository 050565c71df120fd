"""A small knowledge contrast."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_rad.modalities.evidence import FindingReading
from lightning_rad.modalities.radiomics import FEATURES, Bins
from lightning_rad.nn.projector import Projector
from lightning_rad.nn.radiomic_encoder import RadiomicEncoder
from lightning_rad.objectives.knowledge_contrast import KnowledgeContrast
from lightning_rad.objectives.knowledge_settings import (
    Feedback,
    FindingSide,
    KnowledgePairs,
    RadiomicSide,
)

NAMES = ("edema", "mass", "nodule")


class PlacesEncoder(nn.Module):
    """One convolution, whose places are the patches and their mean, or normed mean, the features.

    averages False: a norm stands behind the mean, and heat is true Grad-CAM.
    """

    out_features = 8
    patch_shift = 0.0

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

    changes: averages, findings (of FindingSide), bins, feedback, contrast; the rest of the
    constructor.
    """
    torch.manual_seed(0)
    head = partial(Projector, layers=1, out_features=8, norm="none", ending="linear")
    radiomic = RadiomicSide(
        encoder=partial(RadiomicEncoder, width=16),
        projector=head,
        bins=changes.pop("bins", Bins()),
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
