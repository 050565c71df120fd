"""NT-Xent in float64 where its matrix would not fit: some rows at a time, and by hand.

Shape letters: M = 2 N rows, D features, R rows at a time, S rows that are asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

ELEMENTS = 2**27
"""Of a block of logits: 1 GiB."""


def subset_gradient(z_MD: Tensor, some_S: Tensor, t: float) -> tuple[float, Tensor]:
    """The mean loss over all rows, and its gradient in some of them.

    Row i and row i + N are partners. With P_ij = exp(s_ij - lse_i) the unit row u_i has the
    gradient (sum_j (P_ij + P_ji) u_j - 2 u_partner) / (M t), and row z_i its part across z_i, over
    |z_i|.
    """
    rows = len(z_MD)
    z_MD = z_MD.double()
    u_MD = normalize(z_MD, dim=1)
    partner_M = torch.arange(rows, device=z_MD.device).roll(rows // 2)
    parts = torch.split(torch.arange(rows, device=z_MD.device), max(1, ELEMENTS // rows))
    lse_M = torch.cat([_logits(u_MD, own_R, t).logsumexp(1) for own_R in parts])
    loss = float((lse_M - (u_MD * u_MD[partner_M]).sum(1) / t).mean())
    s_SM = _logits(u_MD, some_S, t)
    weight_SM = (s_SM - lse_M[some_S, None]).exp() + (s_SM - lse_M).exp()
    du_SD = (weight_SM @ u_MD - 2 * u_MD[partner_M[some_S]]) / (rows * t)
    u_SD = u_MD[some_S]
    across_SD = du_SD - u_SD * (u_SD * du_SD).sum(1, keepdim=True)
    return loss, across_SD / torch.linalg.vector_norm(z_MD[some_S], dim=1, keepdim=True)


def _logits(u_MD: Tensor, own_R: Tensor, t: float) -> Tensor:
    s_RM = u_MD[own_R] @ u_MD.T / t
    return s_RM.scatter_(1, own_R[:, None], -torch.inf)
