"""A resumed run must train the same objective."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn

_KEY = "objective_config"
_MAY_CHANGE = ("model.init_args.optimizer", "model.init_args.schedule")


class SameObjective(Callback):
    """Keeps the configured objective in the checkpoint and refuses to resume another one.

    Optimiser and schedule settings may change between two runs; their state is still restored.

    Args:
        config: The `model` section as parsed: plain dicts, lists and scalars.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the objective's config beside its weights."""
        checkpoint[_KEY] = self._config

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Compare, when fitting; validation may load any weights that fit."""
        saved = checkpoint.get(_KEY)
        if trainer.state.fn != TrainerFn.FITTING or saved is None:
            return
        theirs, mine = _flat("model", saved), _flat("model", self._config)
        for key in sorted(theirs.keys() | mine.keys()):
            if theirs.get(key) != mine.get(key) and not key.startswith(_MAY_CHANGE):
                raise ValueError(
                    f"cannot resume: the checkpoint was trained with {key}={theirs.get(key)}, "
                    f"this run has {mine.get(key)}"
                )


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, item in value.items() for k, v in _flat(f"{prefix}.{key}", item).items()}
