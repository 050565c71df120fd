"""Checkpoints that are whole or absent: a kill at any moment leaves the previous one readable."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to disk, then renames."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write one checkpoint to a local path."""
        if storage_options is not None:
            raise TypeError("AtomicCheckpointIO takes no storage_options")
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        with part.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def load_checkpoint(self, path: str | Path, *args: Any, **how: Any) -> dict[str, Any]:
        """Read one checkpoint. Raises ValueError, naming the file, for what is none."""
        try:
            return super().load_checkpoint(path, *args, **how)
        except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
            kind = type(error).__name__
            raise ValueError(f"{path}: not a checkpoint, or a damaged one ({kind})") from error
