"""Checkpoints on disk: folders that are whole or absent, read on any number of ranks, as data."""

from lightning_rad.checkpoints.contents import Contents, read_contents, verify
from lightning_rad.checkpoints.folders import (
    Keep,
    checkpoints,
    is_checkpoint,
    named,
    newest,
    resolve,
    resolve_on_all_ranks,
)
from lightning_rad.checkpoints.read import Place, read
from lightning_rad.checkpoints.write import CheckpointError
from lightning_rad.checkpoints.writer import Writer

__all__ = [
    "CheckpointError",
    "Contents",
    "Keep",
    "Place",
    "Writer",
    "checkpoints",
    "is_checkpoint",
    "named",
    "newest",
    "read",
    "read_contents",
    "resolve",
    "resolve_on_all_ranks",
    "verify",
]
