"""What a text encoder is, and what small transformers share.

Shape letters: B texts, T tokens, D features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from lightning_rad.modalities.words import Words
from lightning_rad.nn.blocks import Part


class TextEncoder(Part, ABC):
    """Token numbers [B, T] to features [B, out_features].

    words: the tokeniser whose numbers it takes. out_features: its width.
    """

    words: Words
    out_features: int

    @abstractmethod
    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Features [B, out_features] of tokens, int64, -1 behind the end of each text.

        They do not depend on how many -1 there are.
        """

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The layers, sharded one by one."""


def mean_of_real(states_BTD: Tensor, tokens_BT: Tensor) -> Tensor:
    """[B, D] mean over the tokens that are not -1, in the states' own precision."""
    real_BT1 = (tokens_BT >= 0).unsqueeze(-1).to(states_BTD.dtype)
    return (states_BTD * real_BT1).sum(1) / real_BT1.sum(1)


def check_limit(of: str, tokens_BT: Tensor, limit: int) -> None:
    """Raises ValueError for rows of more tokens than there are positions."""
    if tokens_BT.shape[1] > limit:
        raise ValueError(f"{of}: {tokens_BT.shape[1]} tokens, and its limit is {limit}")


def check_sizes(of: str, *, width: int, heads: int, **sizes: int) -> None:
    """Raises ValueError, by name, for sizes below 1 and a width that heads do not divide."""
    for key, value in ({"width": width, "heads": heads} | sizes).items():
        if value < 1:
            raise ValueError(f"{of}.{key}: {value} is not at least 1")
    if width % heads:
        raise ValueError(f"{of}.heads: {heads} do not divide the width {width}")


def small_normal(module: nn.Module) -> None:
    """Weights of N(0, 0.02), for `Module.apply`; biases and norms stay as they are."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    elif isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=0.02)
