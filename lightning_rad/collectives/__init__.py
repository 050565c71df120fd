"""The only code that calls torch.distributed: what ranks exchange, and with which gradient."""

from lightning_rad.collectives.broadcast import broadcast
from lightning_rad.collectives.gather import (
    gather_detached,
    gather_rows,
    gather_uneven,
    require_equal_shapes,
)
from lightning_rad.collectives.ranks import rank, world_size
from lightning_rad.collectives.ring import Exchange, Ring, exchange_rows
from lightning_rad.collectives.shuffle import shuffle_rows, unshuffle_rows

__all__ = [
    "Exchange",
    "Ring",
    "broadcast",
    "exchange_rows",
    "gather_detached",
    "gather_rows",
    "gather_uneven",
    "rank",
    "require_equal_shapes",
    "shuffle_rows",
    "unshuffle_rows",
    "world_size",
]
