"""Making shards: sources of radiographs become tars, indexes and a manifest. Offline."""

from lightning_rad.sharding.builder import build, synthesize
from lightning_rad.sharding.foreign import index
from lightning_rad.sharding.inspection import inspect
from lightning_rad.sharding.verification import Report, verify

__all__ = ["Report", "build", "index", "inspect", "synthesize", "verify"]
