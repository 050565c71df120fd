"""Lightning's way to the checkpoints of `lightning_rad.checkpoints`."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from pytorch_lightning.plugins.io import CheckpointIO

from lightning_rad.checkpoints import Keep, Place, Writer, read, resolve_on_all_ranks
from lightning_rad.nn.pretrained import CONFIG_ENTRY

log = logging.getLogger(__name__)


class FolderCheckpointIO(CheckpointIO):
    """Writes what Lightning would put into a file as a folder, through a thread; reads it again.

    `loaded` is the checkpoint that was read last. A path may be a checkpoint or a folder of them,
    which means its newest whole one.
    """

    def __init__(self) -> None:
        self.writer = Writer()
        self.loaded: Path | None = None

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Keep | None = None,
    ) -> None:
        """Write one checkpoint to a local path.

        storage_options: given, the save goes on in the background, `writer.wait()` says how it
        went, and older ones are deleted as it says. Without, the checkpoint is whole on return, and
        CheckpointError is raised if it cannot be written.
        """
        if not isinstance(storage_options, Keep | None):
            raise TypeError("storage_options is what to keep, a Keep, or None")
        self.writer.save(
            checkpoint,
            path,
            step=int(checkpoint.get("global_step", 0)),
            about=_about(checkpoint),
            keep=storage_options,
        )
        if storage_options is None:
            error = self.writer.wait()
            if error is not None:
                raise error

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = None,
        weights_only: bool | None = None,
        *,
        place: Place | None = None,
    ) -> dict[str, Any]:
        """Read one checkpoint, verified by rank 0; no code of it runs. Raises ValueError.

        Every rank has to call it. place: where each tensor goes, as in `checkpoints.read`; the
        tensors are in host memory without it. map_location and weights_only are Lightning's and
        mean nothing here.
        """
        self.writer.wait()
        self.loaded = resolve_on_all_ranks(path)
        if self.loaded != Path(path):
            log.info("checkpoint: %s", self.loaded)
        return read(self.loaded, place=place)

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Delete one checkpoint."""
        shutil.rmtree(path)

    def teardown(self) -> None:
        """Wait for what is being written."""
        self.writer.wait()


def _about(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint belongs to, to be read without its tensors."""
    identity = checkpoint.get("RadiographData", {}).get("identity", {})
    about = {"objective": checkpoint.get("objective"), "data": identity.get("data.manifest")}
    config = checkpoint.get(CONFIG_ENTRY)
    if config is not None:
        text = json.dumps(config, sort_keys=True, default=str)
        about[f"{CONFIG_ENTRY}_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    return about
