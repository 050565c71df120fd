"""Who this process is among those that train together."""

from __future__ import annotations

import torch.distributed as dist


def world_size() -> int:
    """Processes in the default group; 1 where torch.distributed is not initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Position of this process in the default group; 0 where there is none."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
