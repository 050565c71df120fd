"""A resumed run must train the same objective."""

from __future__ import annotations

import logging
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn

from lightning_rad.nn.pretrained import CONFIG_ENTRY

log = logging.getLogger(__name__)

_MODEL = "model.init_args."
_MAY_CHANGE = tuple(
    _MODEL + key
    for key in (
        "schedule",
        "encoder.init_args.init_from",
        "encoder.init_args.channels_last",
        "reports.tokenizer",
        "text.init_args.folder",
        "text.encoder.init_args.folder",
    )
)
_RATES = tuple(
    _MODEL + key
    for key in (
        "optimizer.init_args.lr",
        "optimizer.init_args.inner.init_args.lr",
        "text_rate",
        "text.rate",
    )
)


class SameObjective(Callback):
    """Keeps the configured objective in the checkpoint and refuses to resume another one.

    The schedule may change between two runs, and with a schedule the learning rates; other
    optimiser settings are restored from the checkpoint, so a change of theirs would have no effect
    and is refused. Where the first weights once came from, and the memory format, do not matter;
    nor does where a tokeniser lies, for the objective knows its own by its content.

    Args:
        config: The `model` section as parsed: plain dicts, lists and scalars.
        force: Resume all the same, with a warning for each setting that differs.
    """

    def __init__(self, config: dict[str, Any], *, force: bool = False) -> None:
        self._config, self._force = config, force

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the objective's config beside its weights."""
        checkpoint[CONFIG_ENTRY] = self._config

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Compare, when fitting; validation may load any weights that fit."""
        saved = checkpoint.get(CONFIG_ENTRY)
        if trainer.state.fn != TrainerFn.FITTING or saved is None:
            return
        theirs, mine = _flat("model", saved), _flat("model", self._config)
        scheduled = self._config.get("init_args", {}).get("schedule") is not None
        may_change = (*_MAY_CHANGE, *_RATES) if scheduled else _MAY_CHANGE
        for key in sorted(theirs.keys() | mine.keys()):
            if theirs.get(key) == mine.get(key) or key.startswith(may_change):
                continue
            differs = (
                f"the checkpoint was trained with {key}={theirs.get(key)}, "
                f"this run has {mine.get(key)}"
            )
            if not self._force:
                raise ValueError(
                    f"cannot resume: {differs}; --force_resume true goes on all the same"
                )
            log.warning("--force_resume: %s", differs)


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, item in value.items() for k, v in _flat(f"{prefix}.{key}", item).items()}
