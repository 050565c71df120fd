"""What a command tells its user: the package's log, and errors in one line."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from pytorch_lightning import Callback
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar
from pytorch_lightning.utilities import rank_zero_only

_AROUND = ("Does not validate", "Expected a", "Subtypes:", "Errors:", "Given value")
_LIGHTNING = "pytorch_lightning.utilities.rank_zero"  # the logger of what its rank 0 says
_NOISE = ("TPU available: False", "litlogger", "litmodels")  # devices and services nobody asked for
_SRUN = "The `srun` command is available on your system but is not used"
_DDP = "`broadcast_buffers` is deprecated"  # torch 2.14, of an argument that older ones need


class Bar(RichProgressBar):
    """Lightning's, without the number of a last epoch where there is none (`max_epochs: -1`)."""

    @classmethod
    def instead(cls, enabled: bool | None, given: Sequence[Callback]) -> list[Bar]:
        """One, where a bar is wanted (`trainer.enable_progress_bar`) and the user gave none."""
        own = any(isinstance(callback, ProgressBar) for callback in given)
        return [] if own or enabled is False else [cls()]

    def _get_train_description(self, current_epoch: int) -> str:
        described: str = super()._get_train_description(current_epoch)
        return described.replace("/-2", "") if self.trainer.max_epochs == -1 else described


@contextmanager
def told(environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """The package's log on standard error, plain: what rank 0 says, and every rank's warnings.

    Of Lightning's own words those are left out that concern nobody here.
    """
    log = logging.getLogger("lightning_rad")
    lightning = logging.getLogger(_LIGHTNING)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.setLevel(logging.WARNING if getattr(rank_zero_only, "rank", 0) else logging.INFO)
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    lightning.addFilter(_of_interest)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=_DDP)
            if "SLURM_JOB_ID" not in environ:
                warnings.filterwarnings("ignore", message=_SRUN)
            yield
    finally:
        lightning.removeFilter(_of_interest)
        log.removeHandler(handler)
        log.setLevel(before)


def _of_interest(record: logging.LogRecord) -> bool:
    return not any(word in record.getMessage() for word in _NOISE)


def reason(message: str) -> str:
    """What went wrong in a class that jsonargparse made, without the list of types it tried.

    Where an optional class raises, jsonargparse (4.41 and later) reports every member of the union
    and the whole config; the first error among them is the class's own.
    """
    if not message.startswith("Does not validate against any of the Union"):
        return message
    lines = (line.strip().removeprefix("- ") for line in message.splitlines())
    return next((line for line in lines if line and not line.startswith(_AROUND)), message)
