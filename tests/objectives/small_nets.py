"""The smallest networks that show what matters: with batch statistics and without."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

Norm = Literal["batch", "none"]


class SmallEncoder(nn.Module):
    """Eight channels of one convolution; nothing is dropped unless a test raises `dropout.p`."""

    out_features = 8

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2),
            nn.BatchNorm2d(8) if norm == "batch" else nn.Identity(),
            nn.GELU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, 8),
        )
        self.dropout = nn.Dropout(0.0)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.layers(images))
        return out
