"""Rows against keys: sums of exponentials over a row or a key, and the gradients they imply.

What NT-Xent (rows are keys of each other) and CLIP (images are keys of texts and texts of images)
have in common; each of them is a package of its own with the one function to call.

With s_ij = x_i.y_j / t over unit rows and keys, lse_i = log sum_j exp s_ij over the admissible j
and P_i the positives of row i, the loss of row i is lse_i - mean_{p in P_i} s_ip; a key has a loss
in the same way. Weighted by w_i and v_j these sum to a loss whose gradient in the logits is

    W_ij = w_i exp(s_ij - lse_i) + v_j exp(s_ij - lse_j) - [j in P_i] (w_i / |P_i| + v_j / |P_j|)

and in the rows dx_i = sum_j W_ij y_j / t. Positives are subtracted here and not in a term of
their own, for W may be rounded to bfloat16 afterwards: where a pair is aligned its two large
contributions cancel before they are rounded.

Shape letters: N rows, M keys, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Pairs:
    """Rows [N, D] and keys [M, D] as they came, with int64 ids and groups of each.

    Key j is a positive of row i where their ids are equal, and inadmissible to it where the groups
    are equal, not 0, and the ids are not. own: row i is key own + i, which is neither; -1 where
    rows are no keys. scale: 1 / t, 0-d. in_range: whether exp(s - 1/t) is a normal number for
    every cosine.
    """

    x_ND: Tensor
    y_MD: Tensor
    x_ids_N: Tensor
    y_ids_M: Tensor
    x_groups_N: Tensor | None
    y_groups_M: Tensor | None
    own: int
    scale: Tensor
    in_range: bool

    @property
    def symmetric(self) -> bool:
        """Whether the keys are the rows themselves."""
        return self.own == 0 and len(self.x_ND) == len(self.y_MD)


class Sums(NamedTuple):
    """[N] each: lse, the sum of the logits of a row's positives, and how many it has."""

    lse_N: Tensor
    attraction_N: Tensor
    positives_N: Tensor

    def loss(self) -> Tensor:
        """[N], 0 for a row without a positive."""
        mean_N = self.attraction_N / self.positives_N.clamp_min(1)
        return (self.lse_N - mean_N).where(self.positives_N > 0, 0.0)

    def weights(self, upstream_N: Tensor) -> Weights:
        """What the losses say to gradients when each row's counts `upstream_N` times."""
        counts_N = self.positives_N > 0
        weight_N = upstream_N.where(counts_N, 0.0)
        # a row that does not count may have no admissible key: exp(s + inf) times 0 is not 0
        return Weights(
            self.lse_N.where(counts_N, 0.0), weight_N, weight_N / self.positives_N.clamp_min(1)
        )


class Weights(NamedTuple):
    """[N] each: lse, weight w, and w over the number of positives."""

    lse_N: Tensor
    weight_N: Tensor
    share_N: Tensor
