"""The smallest networks that show what matters: with batch statistics and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from lightning_rad.nn.text_transformer import TextTransformer

Norm = Literal["batch", "none"]

TOKENIZER = str(Path(__file__).parent / "tokenizer.json")
"""80 tokens of `tests.nn.texts.SENTENCES`: an unknown, a start and an end, then words."""


def small_text(words: Any) -> TextTransformer:
    """A text encoder of 4 features that drops nothing."""
    return TextTransformer(words, width=4, layers=1, heads=2, dropout=0.0)


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

    def forward(self, images: Tensor, tokens: bool = False) -> Any:
        """Features [B, 8], and with `tokens` the four patches [B, 4, 8] that they are made of."""
        if not tokens:
            return self.dropout(self.layers(images))
        map_ = self.layers[:4](images)
        return self.dropout(self.layers[4:](map_)), map_.flatten(2).mT
