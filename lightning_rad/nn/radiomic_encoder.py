"""What makes a representation of radiomic features.

Shape letters: N regions, F features.
"""

from __future__ import annotations

from torch import Tensor, nn

from lightning_rad.nn.blocks import Part


class RadiomicEncoder(Part):
    """Two linear layers with a GELU between them: [N, in_features] to [N, width].

    Both layers are as wide as the features in VITA-Group/CheXT (107 there, 102 here, which has
    shape in the plane). Raises ValueError for sizes below 1.
    """

    def __init__(self, in_features: int = 102, *, width: int = 102) -> None:
        super().__init__()
        for key, value in (("in_features", in_features), ("width", width)):
            if value < 1:
                raise ValueError(f"radiomic.encoder.{key}: {value} is not at least 1")
        self.out_features = width
        self.layers = nn.Sequential(
            nn.Linear(in_features, width), nn.GELU(), nn.Linear(width, width)
        )

    def forward(self, features_NF: Tensor) -> Tensor:
        """Representations [N, width]."""
        rows_ND: Tensor = self.layers(features_NF)
        return rows_ND
