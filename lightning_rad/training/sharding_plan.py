"""What of an objective is sharded together, and in which precision it is gathered."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_rad.collectives import average, broadcast
from lightning_rad.nn.blocks import Part
from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.momentum_twin import MomentumTwin
from lightning_rad.nn.projector import Projector

STEPS = ("training_step", "validation_step", "test_step", "predict_step")
"""What Lightning calls in the place of the objective's forward."""


def laid_out(kind: str, ranks: int, copies: int) -> DeviceMesh:
    """Ranks on devices of a kind, as `Plan` takes them: so many copies of shards, if above one."""
    if copies > 1:
        sizes, names = (copies, ranks // copies), ("replicate", "shard")
        return init_device_mesh(kind, sizes, mesh_dim_names=names)
    return init_device_mesh(kind, (ranks,), mesh_dim_names=("shard",))


@dataclass(frozen=True)
class Plan:
    """How the parts of an objective are spread over ranks.

    Sharded together, and so gathered in one piece when they are called: each block of an encoder,
    of images or of text; what else it holds; each projector and every other `Part`; the same of a
    momentum twin. All that an objective holds beside these is gathered at the start of its step.
    Buffers stay whole.

    mesh: one dimension, all ranks; or two, copies of the shards and shards. gathered_as: the
    precision in which parameters are gathered and computed with; None is their own. Where batch
    norms are among them it is their own, for those compute with running statistics in float32.
    Gradients are summed in float32, or in what is wider. reshard: whether whole parameters are
    freed between forward and backward and gathered once more; a twin's are in any case, for it
    has no backward and moves by its shards.
    """

    mesh: DeviceMesh
    device: torch.device
    gathered_as: torch.dtype | None = None
    reshard: bool = True

    def apply(self, objective: LightningModule) -> None:
        """Shard the objective, which starts as that of rank 0, in place, on the device.

        Only one part after the other is whole on the device. Tensors of ranks but 0 may be on the
        meta device. A parameter without a dimension (a learned temperature) cannot be divided: it
        stays whole, and its gradient is averaged by itself.
        """
        for part, of_twin in parts(objective):
            self._bring(part)
            fully_shard(
                part,
                mesh=self.mesh,
                reshard_after_forward=self.reshard or of_twin,
                mp_policy=self._policy(part),
                ignored_params=_undivided(part),
            )
            if isinstance(part, Encoder):
                register_fsdp_forward_method(part, "sensitivity")
        self._bring(objective)
        name = type(objective).__name__
        policy, whole = _policy(None, cast_inputs=False), _undivided(objective)
        fully_shard(objective, mesh=self.mesh, mp_policy=policy, ignored_params=whole)
        type(objective).__name__ = name  # messages and checkpoints speak of the objective by name
        for p in whole:
            if p.requires_grad:
                p.register_post_accumulate_grad_hook(_average_gradient)  # type: ignore[no-untyped-call]
        for step in STEPS:
            register_fsdp_forward_method(objective, step)
        # what calls an encoder before the first step must not make it a root of its own
        fully_shard.state(objective)._lazy_init()  # type: ignore[attr-defined]

    def _bring(self, part: nn.Module) -> None:
        """Put what is not sharded yet on the device, with the values of rank 0."""
        brought: dict[torch.Tensor, Any] = {}
        for module in own_modules(part):
            for held in (module._parameters, module._buffers):
                for name, x in held.items():
                    if x is not None:
                        brought[x] = brought[x] if x in brought else self._here(x)
                        held[name] = brought[x]
        broadcast(x.detach() for x in brought.values())

    def _here(self, x: torch.Tensor) -> torch.Tensor:
        # FSDP2 takes contiguous parameters; it is the images that an encoder puts in channels_last
        if x.is_meta:
            empty = torch.empty(x.shape, dtype=x.dtype, device=self.device)
            return nn.Parameter(empty, x.requires_grad) if isinstance(x, nn.Parameter) else empty
        x.data = x.data.to(self.device).contiguous()
        return x

    def _policy(self, part: nn.Module) -> MixedPrecisionPolicy:
        norms = any(isinstance(module, _BatchNorm) for module in own_modules(part))
        return _policy(None if norms else self.gathered_as)


def parts(objective: LightningModule) -> Iterator[tuple[nn.Module, bool]]:
    """What is sharded together, inner parts first, and whether it is of a momentum twin."""
    twins = [module for module in objective.modules() if isinstance(module, MomentumTwin)]
    of_twins = {module for twin in twins for module in twin.modules()}
    for module in objective.modules():
        called = isinstance(module, Encoder | Projector | Part) or module is objective.encoder
        if called and module not in of_twins:
            yield from ((part, False) for part in _pieces(module))
    for twin in twins:
        for module in twin.net.children():
            yield from ((part, True) for part in _pieces(module))


def _pieces(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, Encoder | Part):
        # a network that is its own one block is gathered with its encoder, which calls its parts
        whole = getattr(module, "net", None)
        yield from (block for block in module.blocks() if block is not whole)
    if any(True for _ in module.parameters()):
        # the only thing done with what these give is to compare it or to pass it on
        told = rf"FSDP2-wrapped module \((FSDP)?{type(module).__name__}\) returned a view tensor"
        warnings.filterwarnings("ignore", told, UserWarning)
        yield module


def own_modules(part: nn.Module) -> Iterator[nn.Module]:
    """A module and what is in it, but for what is sharded by itself."""
    yield part
    for child in part.children():
        if not isinstance(child, FSDPModule):
            yield from own_modules(child)


def _undivided(part: nn.Module) -> set[nn.Parameter]:
    return {p for p in part.parameters() if not p.ndim}


def _average_gradient(p: torch.Tensor) -> None:
    """Of what was accumulated before, the mean over ranks is what it is already."""
    assert p.grad is not None
    average(p.grad)


def _policy(dtype: torch.dtype | None, *, cast_inputs: bool = True) -> MixedPrecisionPolicy:
    reduced = torch.float32 if dtype is not None else None
    return MixedPrecisionPolicy(dtype, reduced, cast_forward_inputs=cast_inputs)
