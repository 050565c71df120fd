"""The encoder at random init: what the architecture alone is worth on the same images."""

from __future__ import annotations

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from lightning_rad.evaluation.assessment import Assessor, Reading
from lightning_rad.evaluation.rows import Rows


class RandomInit:
    """A random-init encoder of the run's configuration, read once and remembered.

    It does not change during a run, so only the first probe sends images through it. The reading
    lives on the rank that made it; that it was made, and on which images, is known to all.
    wanted: false does nothing and reads nothing.
    """

    def __init__(self, seed: int, *, wanted: bool) -> None:
        self._seed = seed
        self._wanted = wanted
        self._encoder: nn.Module | None = None
        self._reading: Reading | None = None
        self._images: tuple[Tensor, Tensor] | None = None

    def forget(self) -> None:
        """Read anew at the next probe."""
        self._reading = self._images = None

    def begin(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        """Make the encoder if it is wanted and was not read yet; whether it was made.

        The global random state is as before.
        """
        if not self._wanted or self._images is not None:
            return False
        with isolate_rng(), torch.inference_mode(False):
            encoder: nn.Module = pl_module.encoder.fresh(self._seed)  # type: ignore[union-attr, operator]
        encoder = trainer.precision_plugin.convert_module(encoder.to(pl_module.device))
        self._encoder = encoder.eval().requires_grad_(False)
        return True

    def features(self, trainer: Trainer, images: Tensor) -> Tensor | None:
        """The random-init features of a batch, in the run's precision; None if not needed."""
        if self._encoder is None:
            return None
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            features: Tensor = self._encoder(images)
        return features

    def read(self, assessor: Assessor, fit: Rows, score: Rows, *, here: bool) -> Reading | None:
        """The reading: made now, or remembered if it was made on these very images.

        Called on every rank with the same rows; computed only where `here`. If the images have
        changed since, there is no reading this time and the next probe makes one.
        """
        self._encoder = None
        if fit.random is not None and score.random is not None:
            self._images = fit.image, score.image
            self._reading = assessor.read(fit.random, score.random, fit, score) if here else None
        elif self._images is not None and not (
            torch.equal(self._images[0], fit.image) and torch.equal(self._images[1], score.image)
        ):
            self.forget()
        return self._reading
