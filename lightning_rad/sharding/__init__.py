"""Making shards: sources of radiographs become tars, indexes and a manifest. Offline."""

from lightning_rad.sharding.builder import build, build_part, merge, synthesize
from lightning_rad.sharding.foreign import index
from lightning_rad.sharding.inspection import inspect
from lightning_rad.sharding.privacy import search
from lightning_rad.sharding.verification import Report, verify

__all__ = [
    "Report",
    "build",
    "build_part",
    "index",
    "inspect",
    "merge",
    "search",
    "synthesize",
    "verify",
]
