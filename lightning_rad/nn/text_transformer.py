"""A small transformer for text, trained from scratch.

Shape letters: B texts, T tokens, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_rad.modalities.words import Words
from lightning_rad.nn.text import (
    TextEncoder,
    check_limit,
    check_sizes,
    mean_of_real,
    small_normal,
)


class TextTransformer(TextEncoder):
    """Pre-norm layers that see the whole text, and the mean over its tokens.

    Words and learned positions, `layers` of self-attention and a GELU layer four times as wide, a
    last layer norm, the mean over what is not padding. Weights start as N(0, 0.02). No published
    text encoder is meant by it: it is what reports are read with where none is at hand.

    words: whose vocabulary and limit are the sizes of the tables. Raises ValueError for sizes that
    do not go together and for more tokens than the limit.
    """

    def __init__(
        self,
        words: Words,
        *,
        width: int = 256,
        layers: int = 4,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_sizes("text", width=width, layers=layers, heads=heads)
        self.words, self.out_features = words, width
        self.table = nn.Embedding(words.vocabulary, width)
        self.positions = nn.Embedding(words.limit, width)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                *(width, heads, 4 * width, dropout),
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.apply(small_normal)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Features [B, width] of tokens, int64, -1 behind the end of each text."""
        check_limit("text", tokens_BT, self.words.limit)
        places_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        x_BTW = self.dropout(self.table(tokens_BT.clamp_min(0)) + self.positions(places_T))
        for layer in self.layers:
            x_BTW = layer(x_BTW, src_key_padding_mask=tokens_BT < 0)
        return mean_of_real(self.norm(x_BTW), tokens_BT)

    def blocks(self) -> list[nn.Module]:
        """The layers."""
        return list(self.layers)
