"""The head between the features that are kept and the embedding that a loss compares.

Shape letters: N rows, D features.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, get_args

from torch import Tensor, nn

Norm = Literal["batch", "layer", "none"]


class Projector(nn.Module):
    """An MLP [N, in_features] -> [N, out_features], normalised and rectified between its layers.

    Follows `projection_head` of google-research/simclr: hidden layers are linear, norm, ReLU; the
    last is linear and norm without offset, neither bias nor ReLU. A linear layer has a bias only
    where no norm follows. SimCLR v1 has layers 2, v2 (arXiv:2006.10029) layers 3; both keep the
    width of the encoder in the hidden ones (hidden None) and project to 128.

    norm: "batch" ties a row's embedding to the batch it is in, "layer" and "none" do not. Raises
    ValueError for sizes below 1 and unknown norms.
    """

    def __init__(
        self,
        in_features: int,
        *,
        hidden: int | None = None,
        out_features: int = 128,
        layers: int = 2,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        hidden = in_features if hidden is None else hidden
        sizes = {"in_features": in_features, "hidden": hidden, "out_features": out_features}
        for key, value in (sizes | {"layers": layers}).items():
            if value < 1:
                raise ValueError(f"projector.{key}: {value} is not at least 1")
        if norm not in get_args(Norm):
            raise ValueError(f"projector.norm: '{norm}' is not one of {list(get_args(Norm))}")
        self.out_features = out_features
        widths = [in_features] + [hidden] * (layers - 1)
        self.layers = nn.Sequential()
        for before, after in pairwise(widths):
            self.layers.append(nn.Linear(before, after, bias=norm == "none"))
            self.layers.append(_norm(norm, after, offset=True))
            self.layers.append(nn.ReLU(inplace=True))
        self.layers.append(nn.Linear(widths[-1], out_features, bias=False))
        self.layers.append(_norm(norm, out_features, offset=False))

    def forward(self, features_ND: Tensor) -> Tensor:
        """Embeddings [N, out_features], not normalised to unit length."""
        embeddings_ND: Tensor = self.layers(features_ND)
        return embeddings_ND


def _norm(kind: Norm, features: int, *, offset: bool) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    if kind == "layer":
        return nn.LayerNorm(features, bias=offset)
    norm = nn.BatchNorm1d(features)
    norm.bias.requires_grad_(offset)  # it starts, and without offset stays, at zero
    return norm
