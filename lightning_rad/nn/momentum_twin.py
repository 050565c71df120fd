"""A slow copy of a network, whose outputs the network learns to match."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_rad.collectives import local_shards, shuffle_rows, unshuffle_rows


class MomentumTwin(nn.Module):
    """A copy of some modules, chained, that follows their parameters and gets no gradient.

    Called a key encoder (MoCo, arXiv:1911.05722, equation 2), target (BYOL, arXiv:2006.07733) or
    teacher. Only parameters are averaged: each batch norm keeps the running statistics of what the
    twin itself saw, as in the official code of all of these. The twin never drops anything, and
    its batch norms are in the mode of the module that holds it (C2L's train_C2L_res18.py puts its
    teacher in eval mode with batch norms in train mode; the others have no dropout).

    modules: what is copied, as it is now; move or load weights before. momentum: the part of
    itself the twin keeps at each step. Raises ValueError where it is not in [0, 1].
    """

    def __init__(self, *modules: nn.Module, momentum: float) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum: {momentum} of the twin is not in [0, 1]")
        self.momentum = momentum
        self.net = copy.deepcopy(nn.Sequential(*modules)).requires_grad_(False)
        self.train()  # Lightning leaves modules in the mode it finds them in

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """What the chained copies make of x, without gradient."""
        out: Tensor = self.net(x)
        return out

    def shuffled(self, x: Tensor, order_M: Tensor) -> Tensor:
        """As forward, but for ShuffleBN: each row passes on the rank that a permutation says.

        Two all-gathers, of the rows and of what becomes of them; none where there is one process
        or no batch norm that sees one rank only, for the result would be the same. order_M: [M]
        int64, of the rows of all ranks, the same on every rank.
        """
        norms = [m for m in self.modules() if isinstance(m, _BatchNorm)]
        if all(isinstance(norm, nn.SyncBatchNorm) for norm in norms):
            return self(x)  # type: ignore[no-any-return]
        return unshuffle_rows(self(shuffle_rows(x, order_M)), order_M)

    @torch.no_grad()
    def follow(self, *modules: nn.Module, progress: float = 0.0) -> None:
        """Every parameter t becomes m t + (1 - m) s, s being that of the modules copied.

        progress: how far the run is, 0 to 1. m rises with it from the twin's momentum to 1 along
        half a cosine (section 3.2 of BYOL; `adjust_moco_momentum` of moco-v3); at 0 it is the
        momentum itself. Where parameters are sharded, those of the twin as the student's, each
        rank moves what it holds and nothing is exchanged.
        """
        momentum = 1 - (1 - self.momentum) * (1 + math.cos(math.pi * progress)) / 2
        own = local_shards(self.net.parameters())
        theirs = local_shards(p for module in modules for p in module.parameters())
        torch._foreach_lerp_(own, theirs, 1 - momentum)

    def train(self, mode: bool = True) -> MomentumTwin:
        """Put the batch norms in a mode; all else is always in that of evaluation."""
        super().train(False)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.train(mode)
        return self
