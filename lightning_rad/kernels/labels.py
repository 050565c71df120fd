"""What ids and groups of keys have to look like."""

from __future__ import annotations

import torch
from torch import Tensor


def require_labels(keys: int, **labels_M: Tensor | None) -> None:
    """Raise ValueError, with its name, for a label that is not one int64 a key."""
    for name, label_M in labels_M.items():
        if label_M is None:
            continue
        if label_M.shape != (keys,):
            raise ValueError(f"{name} {tuple(label_M.shape)} for {keys} keys")
        if label_M.dtype != torch.int64:
            raise ValueError(f"{name} must be int64, not {label_M.dtype}")
