"""The only code that calls torch.distributed: what ranks exchange, and with which gradient."""

from lightning_rad.collectives.gather import (
    gather_ids,
    gather_rows,
    gather_uneven,
    require_equal_shapes,
)
from lightning_rad.collectives.ranks import rank, world_size

__all__ = [
    "gather_ids",
    "gather_rows",
    "gather_uneven",
    "rank",
    "require_equal_shapes",
    "world_size",
]
