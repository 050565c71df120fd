"""What an encoder's features say of findings.

Shape letters: B images, C findings, D features.
"""

from __future__ import annotations

from torch import Tensor, nn

from lightning_rad.nn.blocks import Part


class FindingClassifier(Part):
    """One linear layer: features [B, in_features] to a logit for each finding.

    Raises ValueError for sizes below 1.
    """

    def __init__(self, in_features: int, findings: int) -> None:
        super().__init__()
        for key, value in (("in_features", in_features), ("findings", findings)):
            if value < 1:
                raise ValueError(f"classifier.{key}: {value} is not at least 1")
        self.linear = nn.Linear(in_features, findings)

    def forward(self, features_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, C], and each finding's direction among the features [B, C, D].

        Directions are the layer's weights without gradient, the same for every image: what a class
        activation map weighs channels by. They are a copy, for where the layer is sharded its
        weights are whole in here only.
        """
        logits_BC: Tensor = self.linear(features_BD)
        directions_CD = self.linear.weight.detach().clone()
        return logits_BC, directions_CD.expand(len(features_BD), *directions_CD.shape)
