"""The only code that calls torch.distributed: what ranks exchange, and with which gradient."""

from lightning_rad.collectives.bandwidth import all_reduce_rates
from lightning_rad.collectives.board import Board
from lightning_rad.collectives.broadcast import broadcast
from lightning_rad.collectives.compression import reduce_in_bfloat16
from lightning_rad.collectives.gather import (
    gather_detached,
    gather_rows,
    gather_uneven,
    require_equal_shapes,
)
from lightning_rad.collectives.largest import Largest
from lightning_rad.collectives.objects import (
    Group,
    OwnGroup,
    broadcast_object,
    gather_objects,
    scatter_objects,
)
from lightning_rad.collectives.ranks import rank, world_size
from lightning_rad.collectives.ring import Exchange, Ring, exchange_rows
from lightning_rad.collectives.shards import average, local_shards, spread_like, whole_norms
from lightning_rad.collectives.shuffle import shuffle_rows, unshuffle_rows
from lightning_rad.collectives.vote import Ballot, Vote

__all__ = [
    "Ballot",
    "Board",
    "Exchange",
    "Group",
    "Largest",
    "OwnGroup",
    "Ring",
    "Vote",
    "all_reduce_rates",
    "average",
    "broadcast",
    "broadcast_object",
    "exchange_rows",
    "gather_detached",
    "gather_objects",
    "gather_rows",
    "gather_uneven",
    "local_shards",
    "rank",
    "reduce_in_bfloat16",
    "require_equal_shapes",
    "scatter_objects",
    "shuffle_rows",
    "spread_like",
    "unshuffle_rows",
    "whole_norms",
    "world_size",
]
