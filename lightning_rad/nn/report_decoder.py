"""A causal transformer that writes a report from a memory of image features.

Shape letters: B reports, M places of the memory, D its features, T tokens, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lightning_rad.modalities.words import Words
from lightning_rad.nn.blocks import Part
from lightning_rad.nn.text import check_sizes, small_normal
from lightning_rad.schema import PADDING


class ReportDecoder(Part):
    """The captioning head of REFERS, which is that of VirTex (arXiv:2006.06666).

    As `textual_heads.py` and `embedding.py` of funnyzhou/REFERS: words and learned positions, layer
    norm (eps 1e-8) and dropout; post-norm decoder layers with GELU over a linear projection of the
    memory; logits by the table of words itself and a bias. Weights start as N(0, 0.02), biases as
    torch's do. In that code number 0 is both the padding and an unknown word; here padding is -1
    and unknown words are words. It also hides padding from attention, where causality has hidden
    it already.

    words: whose vocabulary and limit are the sizes of the tables. Raises ValueError for sizes that
    do not go together and for more tokens than the limit.
    """

    def __init__(
        self,
        memory_features: int,
        words: Words,
        *,
        width: int = 1024,
        layers: int = 1,
        heads: int = 16,
        feedforward: int = 4096,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_sizes("decoder", width=width, layers=layers, heads=heads, feedforward=feedforward)
        self.limit, self.vocabulary, self._end = words.limit, words.vocabulary, words.end
        self._start = words.start
        self.words = nn.Embedding(words.vocabulary, width)
        self.positions = nn.Embedding(words.limit, width)
        self.norm = nn.LayerNorm(width, eps=1e-8)
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(memory_features, width)
        layer = nn.TransformerDecoderLayer(
            width, heads, feedforward, dropout, activation="gelu", batch_first=True
        )
        self.layers = nn.TransformerDecoder(layer, layers)
        self.bias = nn.Parameter(torch.empty(words.vocabulary))
        nn.init.uniform_(self.bias, -(width**-0.5), width**-0.5)
        self.apply(small_normal)

    def forward(self, memory_BMD: Tensor, tokens_BT: Tensor) -> Tensor:
        """Logits [B, T, vocabulary] of the token behind each of tokens_BT, int64, -1 at the end.

        They depend on the tokens up to that place alone, and mean nothing behind a report's end.
        """
        length = tokens_BT.shape[1]
        if length > self.limit:
            raise ValueError(f"decoder: {length} tokens, and its limit is {self.limit}")
        places_T = torch.arange(length, device=tokens_BT.device)
        x_BTW = self.words(tokens_BT.clamp_min(0)) + self.positions(places_T)
        x_BTW = self.dropout(self.norm(x_BTW))
        later_TT = places_T.unsqueeze(0) > places_T.unsqueeze(1)
        # no mask of padding: it stands behind all that counts, and none looks there. Said to be
        # causal, or torch compares the mask with one and waits for the device
        memory_BMW = self.projection(memory_BMD)
        x_BTW = self.layers(x_BTW, memory_BMW, tgt_mask=later_TT, tgt_is_causal=True)
        return linear(x_BTW, self.words.weight, self.bias)

    @torch.no_grad()
    def generate(self, memory_BMD: Tensor, steps: int) -> Tensor:
        """[B, steps] int64: each report's start, then the likeliest next token again and again.

        Laid out as reports in a batch are: -1 behind the end, which some do not reach. `steps` - 1
        calls of `forward` whatever is written, so that ranks that hold shards of the weights call
        it equally often. In eval mode this is a function of the memory.
        """
        if not 1 <= steps <= self.limit:
            raise ValueError(f"decoder: {steps} steps are not 1 to {self.limit}, its limit")
        tokens_BT = torch.full(
            (len(memory_BMD), 1), self._start, dtype=torch.long, device=memory_BMD.device
        )
        for _ in range(steps - 1):
            last_B = tokens_BT[:, -1]
            likeliest_B = self(memory_BMD, tokens_BT)[:, -1].argmax(-1)
            over_B = (last_B == self._end) | (last_B < 0)
            next_B = likeliest_B.masked_fill(over_B, PADDING)
            tokens_BT = torch.cat([tokens_BT, next_B.unsqueeze(1)], dim=1)
        return tokens_BT
