"""Which training steps are measured, and their objectives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal

import torch

from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.base import Objective
from lightning_rad.objectives.moco_v3 import MoCoV3
from lightning_rad.objectives.simclr import SimCLR
from lightning_rad.optim.lars import LARS

Kind = Literal["SimCLR ResNet-50", "SimCLR ViT-B/16", "MoCo v3 ViT-B/16"]

RESNET: Final = "SimCLR ResNet-50"
VIT: Final = "SimCLR ViT-B/16"
TWIN: Final = "MoCo v3 ViT-B/16"
BOTH: Final[tuple[Kind, ...]] = (RESNET, VIT)


@dataclass(frozen=True)
class Case:
    """One row: how a step differs from the eager one in bfloat16."""

    kind: Kind
    switch: str
    precision: str = "bf16-mixed"
    channels_last: bool = False
    optimizer: dict[str, Any] = field(default_factory=dict)
    speed: dict[str, Any] = field(default_factory=dict)
    sharded: bool = False


def cases() -> Iterator[Case]:
    """In the order of what one wants to know first, where the time does not suffice for all."""
    fast = {"compile": "blocks"}
    graphs = fast | {"compile_mode": "reduce-overhead"}
    for kind in BOTH:
        yield Case(kind, "eager, bf16-mixed")
    yield Case(RESNET, "channels_last", channels_last=True)
    yield Case(VIT, "fused AdamW", optimizer={"fused": True})
    yield Case(VIT, "compile", speed=fast)
    yield Case(RESNET, "channels_last, compile", channels_last=True, speed=fast)
    yield Case(VIT, "fused AdamW, compile", optimizer={"fused": True}, speed=fast)
    for kind in BOTH:
        yield Case(kind, "recomputed blocks", speed={"activation_checkpointing": True})
    for kind in BOTH:
        yield Case(kind, "16-mixed", precision="16-mixed")
        yield Case(kind, "32-true, tf32", precision="32-true", speed={"tf32": True})
    yield Case(TWIN, "eager, bf16-mixed", optimizer={"fused": True})
    yield Case(TWIN, "compile", optimizer={"fused": True}, speed=fast)
    yield Case(VIT, "Sharded, one rank", optimizer={"fused": True}, sharded=True)
    yield Case(VIT, "CUDA graphs", optimizer={"fused": True}, speed=graphs)
    yield Case(RESNET, "compile", speed=fast)
    yield Case(RESNET, "channels_last, CUDA graphs", channels_last=True, speed=graphs)
    yield Case(VIT, "AdamW, a loop", optimizer={"foreach": False})
    for kind in BOTH:
        yield Case(kind, "32-true", precision="32-true", speed={"tf32": False})


def build(case: Case, tiny: bool) -> Objective:
    """The objective as its paper has it, over grayscale images of 224 pixels; tiny: of 32."""
    torch.manual_seed(0)
    kwargs: dict[str, Any] = {}
    if case.kind == RESNET:
        encoder = Encoder("resnet18" if tiny else "resnet50", channels_last=case.channels_last)
    else:
        if tiny:
            kwargs = {"depth": 2, "embed_dim": 32, "num_heads": 2}
        size = 32 if tiny else 224
        encoder = Encoder("vit_base_patch16_224", image_size=size, kwargs=kwargs)
    adam = partial(torch.optim.AdamW, lr=1e-4, weight_decay=0.1, **case.optimizer)
    if case.kind == TWIN:
        head = partial(Projector, hidden=64 if tiny else 4096, out_features=256)
        first, then = partial(head, layers=3), partial(head, layers=2)
        return MoCoV3(encoder, projector=first, predictor=then, optimizer=adam, temperature=0.2)
    optimizer: Any = partial(LARS, lr=0.1) if case.kind == RESNET else adam
    head = partial(Projector, hidden=64 if tiny else 2048, out_features=128, layers=2)
    return SimCLR(encoder, projector=head, optimizer=optimizer)
