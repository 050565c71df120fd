"""A predictor of gaze: from an image to where a reader would look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from lightning_rad.collectives import gather_detached, world_size
from lightning_rad.losses.attention import correlation, kl_of_maps
from lightning_rad.modalities.evidence import GazeReading
from lightning_rad.modalities.gaze import Saliency
from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.gaze_decoder import GazeDecoder
from lightning_rad.objectives.base import (
    Embeddings,
    Objective,
    OptimizerFactory,
    ScheduleFactory,
)
from lightning_rad.schema import Gaze, LabelledBatch, ViewBatch


@final
class GazePredictor(Objective):
    """Predicts the map of a reader's fixations (step 2 of FocusContrast, arXiv:2305.08826).

    That paper names neither network nor loss. Here: the encoder's patches, to each of which the
    feature of the whole image is added, go through a small convolutional decoder; the softmax of
    its scores over the map is held against the recorded density by the Kullback-Leibler divergence
    (term `kl`) and by 1 - Pearson's correlation (term `correlation`), the usual pair for saliency.
    Both are means over the views with gaze of all ranks; a view without any costs nothing.
    Accumulating gradients over k micro-batches averages k means, each by its own views.

    Args:
        encoder: One of timm that gives patches, a square grid of them; `output_stride: 8` of a
            ResNet makes the grid finer.
        gaze: Which maps are learned from; its side is the decoder's.
        decoder: What makes a map of patches; gets the encoder's width.
        optimizer: Optimiser class and its arguments but for the parameters.
        correlation: Weight of the term of this name, at least 0.
        schedule: Learning-rate schedule class and its arguments.
        seed: Seed of what is random inside the modules.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"views", "unit", "gaze"})
    least_views: ClassVar[int] = 1

    def __init__(
        self,
        encoder: Encoder,
        *,
        gaze: Saliency,
        decoder: Callable[[int], GazeDecoder],
        optimizer: OptimizerFactory,
        correlation: float = 1.0,
        schedule: ScheduleFactory | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, optimizer=optimizer, schedule=schedule, seed=seed)
        if not correlation >= 0:
            raise ValueError(f"correlation must be at least 0, got {correlation}")
        self.decoder = decoder(encoder.out_features)
        if self.decoder.side != gaze.side:
            raise ValueError(
                f"decoder.side is {self.decoder.side} and gaze.side {gaze.side}: set both alike"
            )
        self.gaze, self.correlation = gaze, correlation

    def embed(self, batch: ViewBatch) -> Embeddings:
        """Scores of each cell of each view's map, [V, B, S * S]."""
        _, scores = self._look(batch.views.flatten(0, 1))
        return {"scores": scores.view(*batch.views.shape[:2], -1)}

    def terms(self, embeddings: Embeddings, batch: ViewBatch) -> dict[str, Tensor]:
        """Both terms, as the mean of what all ranks return."""
        map_NSS = _gaze_of(batch).map.flatten(0, 1)
        scores_NSS = embeddings["scores"].flatten(0, 1).view(map_NSS.shape)
        looked_N = map_NSS.flatten(1).sum(1) > 0
        # no view of any rank with gaze: 0, and a gradient of 0 that every rank takes part in
        of_all = gather_detached(looked_N.sum()[None]).sum().clamp_min(1)
        kl_N = kl_of_maps(scores_NSS, map_NSS)
        cc_N = correlation(_densities(scores_NSS), map_NSS)
        off_N = self.correlation * (1 - cc_N) * looked_N
        # sums first: a count's reciprocal alone would be float32
        return {
            "kl": kl_N.sum() * world_size() / of_all,
            "correlation": off_N.sum() * world_size() / of_all,
        }

    def setup(self, stage: str) -> None:
        """As every objective; then tell the data which maps to read."""
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if data is not None:  # evaluation may be given loaders alone
            data.read_gaze(GazeReading(self.gaze))

    def validation_step(
        self, batch: LabelledBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """As every objective's, and the predicted densities, map: [B, S, S] float32."""
        features_BD, scores_BSS = self._look(batch.images)
        return {
            "features": features_BD.float(),
            "labels": batch.labels,
            "patient": batch.patient,
            "image": batch.image,
            "map": _densities(scores_BSS).float(),
        }

    test_step = validation_step
    predict_step = validation_step

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what else a map depends on: the views' size, how greys become numbers, the grid."""
        super().on_save_checkpoint(checkpoint)
        data = getattr(self.trainer, "datamodule", None)
        if data is None:
            return
        mean, std = data.numbers
        checkpoint["gaze"] = {
            "size": data.views[0].size,
            "mean": mean,
            "std": std,
            "side": self.gaze.side,
            "spread": self.gaze.spread,
        }

    def maps_of(self, images_N1HW: Tensor) -> Tensor:
        """Predicted densities [N, S, S] over whole images, float32."""
        return _densities(self._look(images_N1HW)[1]).float()

    def _look(self, images_N1HW: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, D] and scores [N, S, S] of images."""
        features_ND, tokens_NPD = self.encoder(images_N1HW, tokens=True)
        return features_ND, self.decoder(tokens_NPD + features_ND.unsqueeze(1))


def _gaze_of(batch: ViewBatch) -> Gaze:
    """Where readers looked; `setup` has asked for it."""
    assert batch.gaze is not None, "the data gives no gaze"
    return batch.gaze


def _densities(scores_NSS: Tensor) -> Tensor:
    """[N, S, S] of sum 1 a row, in float32 or wider."""
    wide = torch.float64 if scores_NSS.dtype == torch.float64 else torch.float32
    return scores_NSS.flatten(1).softmax(1, dtype=wide).view_as(scores_NSS)
