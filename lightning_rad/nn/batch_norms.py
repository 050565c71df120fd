"""Batch norms whose statistics are those of all ranks, whatever else they compute."""

from __future__ import annotations

from timm.layers import SyncBatchNormAct, convert_sync_batchnorm
from torch import nn


def synchronise(model: nn.Module) -> nn.Module:
    """The model with its batch norms replaced in place by ones that see all ranks.

    Those of timm that hold an activation (EfficientNet, RegNet, DenseNet) keep it; torch's own
    converter silently leaves it out (timm's issue 1254).
    """
    converted: nn.Module = convert_sync_batchnorm(model)
    return converted


def is_fused(module: nn.Module) -> bool:
    """Whether a module is such a norm with an activation of its own."""
    return isinstance(module, SyncBatchNormAct)
