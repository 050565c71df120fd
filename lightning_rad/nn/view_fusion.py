"""Several views of one study as one memory for a decoder.

Shape letters: V views, B studies, P patches, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_rad.nn.blocks import Part


class ViewFusion(Part):
    """The attention over views of REFERS (arXiv:2111.03452): a gate for each patch of each view.

    At each patch the features of all views lie side by side, and a linear layer of each view's own
    makes of them that view's gate, a sigmoid: gates of one patch do not sum to one. Gated patches
    of all views are the memory, one after the other. As `Fusion.py` of funnyzhou/REFERS since its
    commit 70db2a0; before it the three layers were used otherwise.

    Raises ValueError for sizes below 1, and for other than the stated views and features.
    """

    def __init__(self, features: int, *, views: int = 3) -> None:
        super().__init__()
        for key, value in (("features", features), ("views", views)):
            if value < 1:
                raise ValueError(f"fusion.{key}: {value} is not at least 1")
        self.features = features
        self.heads = nn.ModuleList(nn.Linear(views * features, 1) for _ in range(views))

    def gates(self, tokens_VBPD: Tensor) -> Tensor:
        """[V, B, P, 1], each in (0, 1)."""
        views, _, _, features = tokens_VBPD.shape
        if (views, features) != (len(self.heads), self.features):
            raise ValueError(
                f"fusion takes {len(self.heads)} views of {self.features} features, "
                f"not {views} of {features}"
            )
        together_BPE = torch.cat(list(tokens_VBPD), dim=-1)
        return torch.stack([head(together_BPE) for head in self.heads]).sigmoid()

    def forward(self, tokens_VBPD: Tensor) -> Tensor:
        """Memory [B, V * P, D]: gated patches, view after view."""
        gated_VBPD = tokens_VBPD * self.gates(tokens_VBPD)
        return torch.cat(list(gated_VBPD), dim=1)
