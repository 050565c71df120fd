"""The newest keys of all ranks, kept as negatives for the steps to come.

Shape letters: N new keys, K keys in the queue, D features.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lightning_rad.kernels.unit_rows import unit_rows
from lightning_rad.randomness import hash64

Init = Literal["sphere", "uniform"]
"""sphere: unit vectors in random directions (MoCo); uniform: entries uniform within sqrt(3 / D) of
zero, so of about unit length (C2L, after CMC)."""


class FeatureQueue(nn.Module):
    """A ring of K keys of D features, equal on all ranks and part of every checkpoint.

    New keys are staged while an optimiser step is under way and take their places, in the order in
    which they were staged, once it was taken: the oldest keys leave. K need not be a multiple of
    what a step stages; the ring goes on from wherever it ended. Nothing waits for the device.

    features: D. length: K. seed: of the keys it starts with, the same on every rank. Raises
    ValueError for sizes below 1, an unknown init, and keys that do not fit.
    """

    keys_KD: Tensor
    pointer: Tensor

    def __init__(self, features: int, *, length: int, init: Init = "sphere", seed: int = 0) -> None:
        super().__init__()
        if length < 1 or features < 1:
            raise ValueError(f"queue: length {length} and features {features} must be at least 1")
        if init not in get_args(Init):
            raise ValueError(f"queue.init: '{init}' is not one of {list(get_args(Init))}")
        self.length = length
        self.register_buffer("keys_KD", _first_keys(length, features, init, seed))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self._staged: list[Tensor] = []

    @torch.no_grad()
    def stage(self, keys_ND: Tensor) -> None:
        """Hold the keys of all ranks, as they are to be compared with (unit rows), for the step."""
        if keys_ND.shape[1:] != self.keys_KD.shape[1:]:
            raise ValueError(
                f"queue: keys {tuple(keys_ND.shape)} for features {self.keys_KD.shape[1]}"
            )
        self._staged.append(keys_ND.detach().to(self.keys_KD.dtype))
        if (step := sum(map(len, self._staged))) > self.length:
            raise ValueError(
                f"queue.length: {self.length} is less than the {step} keys of one optimiser step"
            )

    @torch.no_grad()
    def upcoming(self) -> Tensor:
        """[K, D] as the queue will be with what is staged: itself where there is nothing."""
        if not self._staged:
            return self.keys_KD
        staged_ND = torch.cat(self._staged)
        return self.keys_KD.index_copy(0, self._places(len(staged_ND)), staged_ND)

    @torch.no_grad()
    def advance(self) -> None:
        """Write the staged keys over the oldest ones."""
        if self._staged:
            staged_ND = torch.cat(self._staged)
            self.keys_KD.index_copy_(0, self._places(len(staged_ND)), staged_ND)
            self.pointer.add_(len(staged_ND)).remainder_(self.length)
            self.drop()

    def drop(self) -> None:
        """Forget the staged keys, of a step that was not taken."""
        self._staged.clear()

    def _places(self, number: int) -> Tensor:
        following = torch.arange(number, device=self.pointer.device)
        return (self.pointer + following).remainder(self.length)


def _first_keys(length: int, features: int, init: Init, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(int(hash64("queue", seed)) >> 1)
    if init == "sphere":
        return unit_rows(torch.randn(length, features, generator=generator))
    return (2 * torch.rand(length, features, generator=generator) - 1) * math.sqrt(3 / features)
