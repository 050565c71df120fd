"""The head between the features that are kept and the embedding that a loss compares.

Shape letters: N rows, D features.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, get_args

from torch import Tensor, nn

Norm = Literal["batch", "layer", "none"]
Ending = Literal["scaled", "plain", "linear", "biased"]


class Projector(nn.Module):
    """An MLP [N, in_features] -> [N, out_features], normalised and rectified between its layers.

    Hidden layers are linear, norm, ReLU, with a bias only where no norm follows. SimCLR v1 has
    layers 2, v2 (arXiv:2006.10029) layers 3; both keep the width of the encoder in the hidden ones
    (hidden None) and project to 128.

    norm: "batch" ties a row's embedding to the batch it is in, "layer" and "none" do not.
    ending: what the last layer is, behind which no method has a ReLU.
      "scaled": linear, norm with a learned scale and no offset (SimCLR, `projection_head` of
        google-research/simclr).
      "plain": linear, norm with neither (MoCo v3, `_build_mlp` of facebookresearch/moco-v3, but for
        the predictor of its ResNets).
      "linear": linear alone (that predictor; projector and predictor of BYOL, `MLP` of
        google-deepmind/deepmind-research; Barlow Twins and VICReg).
      "biased": linear with a bias (MoCo v1 and C2L with layers 1, MoCo v2 with norm "none":
        `fc` of facebookresearch/moco and funnyzhou/C2L_MICCAI2020).
    BYOL gives its hidden layer a bias that the norm behind it cancels; it is left out here.

    Raises ValueError for sizes below 1, unknown norms and unknown endings.
    """

    def __init__(
        self,
        in_features: int,
        *,
        hidden: int | None = None,
        out_features: int = 128,
        layers: int = 2,
        norm: Norm = "batch",
        ending: Ending = "scaled",
    ) -> None:
        super().__init__()
        hidden = in_features if hidden is None else hidden
        sizes = {"in_features": in_features, "hidden": hidden, "out_features": out_features}
        for key, value in (sizes | {"layers": layers}).items():
            if value < 1:
                raise ValueError(f"projector.{key}: {value} is not at least 1")
        for key, word, words in (("norm", norm, Norm), ("ending", ending, Ending)):
            if word not in get_args(words):
                raise ValueError(f"projector.{key}: '{word}' is not one of {list(get_args(words))}")
        self.out_features = out_features
        widths = [in_features] + [hidden] * (layers - 1)
        self.layers = nn.Sequential()
        for before, after in pairwise(widths):
            self.layers.append(nn.Linear(before, after, bias=norm == "none"))
            self.layers.append(_norm(norm, after))
            self.layers.append(nn.ReLU(inplace=True))
        self.layers.append(nn.Linear(widths[-1], out_features, bias=ending == "biased"))
        if ending in ("scaled", "plain"):
            self.layers.append(_norm(norm, out_features, scale=ending == "scaled", offset=False))

    def forward(self, features_ND: Tensor) -> Tensor:
        """Embeddings [N, out_features], not normalised to unit length."""
        embeddings_ND: Tensor = self.layers(features_ND)
        return embeddings_ND


def _norm(kind: Norm, features: int, *, scale: bool = True, offset: bool = True) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    if kind == "layer":
        return nn.LayerNorm(features, elementwise_affine=scale, bias=offset)
    norm = nn.BatchNorm1d(features, affine=scale)
    if scale:
        norm.bias.requires_grad_(offset)  # it starts, and without offset stays, at zero
    return norm
