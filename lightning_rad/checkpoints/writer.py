"""Saves in the background: training waits for a copy into host memory, not for the disk."""

from __future__ import annotations

import logging
import threading
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor

from lightning_rad.checkpoints.folders import Keep, prune
from lightning_rad.checkpoints.staging import Staging, not_finite
from lightning_rad.checkpoints.tree import split
from lightning_rad.checkpoints.write import CheckpointError, Job, write
from lightning_rad.collectives import Group, OwnGroup, broadcast_object, gather_objects, rank

log = logging.getLogger(__name__)


class Writer:
    """Writes checkpoints, one at a time, in a thread.

    Where a leaf of the tree is a DTensor all ranks call each method and write their shards, over a
    group of their own; else one process calls, and writes all.

    Args:
        weights: The entry of the tree that holds the weights. They are never saved with an infinity
            or a NaN in them: such a save is refused with a warning, and what was saved stays.
    """

    def __init__(self, weights: str = "state_dict") -> None:
        self._weights = weights
        self._staging = Staging()
        self._thread: threading.Thread | None = None
        self._error: CheckpointError | None = None
        self._own_group = OwnGroup()

    def save(
        self,
        tree: dict[str, Any],
        folder: str | PathLike[str],
        *,
        step: int,
        about: dict[str, Any] | None = None,
        keep: Keep | None = None,
    ) -> bool:
        """Begin to save; False if the weights are not finite and nothing will be saved.

        Back as soon as the tensors are copied. Waits for the save before, if that is still under
        way. What goes wrong later is logged as a warning and returned by `wait`. keep: what is
        deleted beside the new checkpoint once that is whole; None: nothing. Raises ValueError for
        a tree that is not plain data and tensors.
        """
        self.wait()
        self._error = None
        folder = Path(folder)
        plain, tensors = split(tree)
        together = any(isinstance(x, DTensor) for x in tensors.values())
        group = self._own_group.get() if together else None
        if self._refuses(tensors, folder, together, group):
            return False
        job = Job(folder, step, plain, self._staging.copy(tensors), about or {})
        self._thread = threading.Thread(
            target=self._write, args=(job, keep, together, group), name="checkpoint", daemon=True
        )
        self._thread.start()
        return True

    def wait(self, timeout: float | None = None) -> CheckpointError | None:
        """Wait until the last save is over; what went wrong with it, if anything."""
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                return CheckpointError(f"the checkpoint is not written after {timeout} s")
            self._thread = None
        return self._error

    def _write(self, job: Job, keep: Keep | None, together: bool, group: Group) -> None:
        first = not together or rank() == 0
        try:
            write(job, together=together, group=group)
        except Exception as error:
            self._error = CheckpointError(f"checkpoint {job.folder} could not be written: {error}")
            if first:
                log.warning("%s; training goes on, the next one is tried in its turn", self._error)
            return
        if keep is not None and first:
            try:
                prune(job.folder, keep)
            except OSError as error:
                log.warning("old checkpoints beside %s could not be deleted: %s", job.folder, error)

    def _refuses(
        self, tensors: dict[str, Tensor], folder: Path, together: bool, group: Group
    ) -> bool:
        weights = {k: x for k, x in tensors.items() if k.startswith(f"{self._weights}.")}
        bad = not_finite(weights)
        if together:
            of_all = broadcast_object(gather_objects(bad, group), group)
            bad = [key for of_one in of_all or () for key in of_one]
        if not bad:
            return False
        more = f" ({len(bad) - 1} more tensors do)" if bad[1:] else ""
        self._error = CheckpointError(
            f"checkpoint {folder} is not written: {bad[0]} holds an infinity or a NaN{more}; what "
            "was saved before stays"
        )
        if not together or rank() == 0:
            log.warning("%s", self._error)
        return True
