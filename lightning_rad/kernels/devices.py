"""Where a kernel is launched."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor


def device_of(x: Tensor) -> AbstractContextManager[Any]:
    """While it lasts the tensor's GPU is the current one, on which Triton launches; no other."""
    current = torch.cuda.device_of(x)  # type: ignore[no-untyped-call]
    return cast("AbstractContextManager[Any]", current)
