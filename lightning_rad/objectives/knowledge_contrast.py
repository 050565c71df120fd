"""Radiomics knowledge contrast: an image finds the radiomics of the region that it points at.

Shape letters: V views (one), B images, C findings, P patches, g sides of their map, D features,
K boxes of an image, F radiomic features, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from lightning_rad.collectives import exchange_rows, gather_detached, rank, world_size
from lightning_rad.losses.focal import focal
from lightning_rad.losses.nt_xent import nt_xent
from lightning_rad.modalities.heat import box_of_heat, heat_along
from lightning_rad.modalities.radiomics import FEATURES, cut, radiomics
from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.finding_classifier import FindingClassifier
from lightning_rad.nn.projector import Projector
from lightning_rad.nn.running_z_score import RunningZScore
from lightning_rad.objectives.base import Embeddings, Objective, OptimizerFactory, ScheduleFactory
from lightning_rad.objectives.knowledge_regions import Regions, driving, findings_of, regions_of
from lightning_rad.objectives.knowledge_settings import (
    FindingSide,
    KnowledgePairs,
    RadiomicSide,
    require_a_term,
    require_one_width,
    require_same_findings,
    require_wide_statistics,
)
from lightning_rad.schema import LabelledBatch, ViewBatch


@final
class KnowledgeContrast(Objective):
    """Knowledge-Augmented Contrastive Learning (WACV 2022, arXiv:2104.04968).

    A classifier on the encoder's features learns findings by focal loss, over the known labels of
    all ranks. Where it looks for one of them, by Grad-CAM on the weights of this very step, lies a
    region; an annotated box is taken in its place where there is one. Radiomic features of that
    region, on one scale by running statistics, go through an encoder and a projector of their own,
    and NT-Xent over both kinds of rows of all ranks makes positives of an image and its region.
    Images without labels contribute the contrast alone. No gradient passes through regions or
    radiomics, and none of the contrast reaches the classifier.

    Follows the paper where it says something, then VITA-Group/CheXT at 66cf142, which holds a
    later variant of it with a transformer; docs/methods.md sets both beside this. Chosen here: what
    drives the heat map (see `driving`), and which box is taken (see `regions_of`).

    Where features are the mean of the last map, the heat is the class activation map, which is
    Grad-CAM up to a factor and needs no backward; elsewhere the network's own head is run once more
    for the gradient. Networks whose features are not made of their patches are refused.

    A micro-batch takes the focal loss by its own number of labels, and its contrast has its own
    negatives: accumulating gradients is not the loss of the large batch. A step without radiomics
    (`radiomic.feedback`) has gradients of exactly zero on their side, so an optimiser with momentum
    or weight decay still moves it.

    Args:
        encoder: The network that is pretrained; one of timm whose features come from its patches.
        findings: What is known of images, and the weight of learning it.
        projector: Head behind the encoder; its input width is the encoder's.
        radiomic: What stands on the side of the radiomic features.
        contrast: How the two are compared.
        optimizer: Optimiser class and its arguments but for the parameters.
        schedule: Learning-rate schedule class and its arguments.
        seed: Seed of what is random inside the modules.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"views", "unit", "findings", "greys"})
    least_views: ClassVar[int] = 1
    most_views: ClassVar[int | None] = 1

    def __init__(
        self,
        encoder: Encoder,
        *,
        findings: FindingSide,
        projector: Callable[[int], Projector],
        radiomic: RadiomicSide,
        contrast: KnowledgePairs = KnowledgePairs(),  # noqa: B008 - frozen
        optimizer: OptimizerFactory,
        schedule: ScheduleFactory | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, optimizer=optimizer, schedule=schedule, seed=seed)
        require_a_term(findings, contrast)
        self.findings, self.contrast = findings, contrast
        self.finding_names = findings.reading.names  # of the logits, for what measures them
        self.bins, self.feedback = radiomic.bins, radiomic.feedback
        self.averages = encoder.averages  # refuses a network without a heat map
        self.patch_shift = encoder.patch_shift
        width = encoder.out_features
        self.classifier = FindingClassifier(width, len(findings.reading.names))
        if contrast.weight > 0:
            self.projector = projector(width)
            self.z_score = RunningZScore(len(FEATURES))
            self.radiomic_encoder = radiomic.encoder(len(FEATURES))
            self.radiomic_projector = radiomic.projector(self.radiomic_encoder.out_features)
            require_one_width(self.projector, self.radiomic_projector)
        self._shares: dict[str, Tensor] = {}

    @property
    def _compares(self) -> bool:
        """Whether this step has a contrast."""
        return self.contrast.weight > 0 and self.feedback.takes(self.global_step)

    def embed(self, batch: ViewBatch) -> Embeddings:
        """Logits [1, B, C], and with a contrast projections [1, B, D] and heat [1, B, g, g].

        The heat is that of the finding which drives the region.
        """
        features_BD, tokens_BPD = self.encoder(batch.views[0], tokens=True)
        logits_BC, directions_BCD = self.classifier(features_BD)
        found = {"logits": logits_BC[None]}
        if self._compares and self.feedback.regions == "heat":
            # before the projector: see benchmarks/exchanges.py
            which_B = driving(logits_BC, findings_of(batch).labels)
            rows_B = torch.arange(len(which_B), device=which_B.device)
            found["heat"] = self._heat(tokens_BPD, directions_BCD[rows_B, which_B])[None]
        if self.contrast.weight > 0:
            found["image"] = self.projector(features_BD)[None]
        return found

    def terms(self, embeddings: Embeddings, batch: ViewBatch) -> dict[str, Tensor]:
        """The focal loss over known labels, and the contrast in steps that have one, weighed."""
        self._shares = {}
        logits_BC, labels_BC = embeddings["logits"][0], findings_of(batch).labels
        how = self.findings
        total, known = focal(logits_BC, labels_BC, alpha=how.alpha, gamma=how.gamma)
        of_all = gather_detached(known[None]).sum().clamp(min=1)
        focal_loss = how.weight * total * world_size() / of_all
        if self.contrast.weight == 0:
            return {"focal": focal_loss}
        image_BD = embeddings["image"][0]
        rows_BF = image_BD.new_zeros(len(image_BD), len(FEATURES))
        if self._compares:
            rows_BF = self._scored(self._regions(embeddings, batch), batch)
        radiomic_BD = self.radiomic_projector(self.radiomic_encoder(rows_BF))
        if not self._compares:  # every parameter gets its gradient, a zero, in every step
            return {"focal": focal_loss + (image_BD.sum() + radiomic_BD.sum()) * 0.0}
        contrast = self._compare(image_BD, radiomic_BD, batch)
        return {"focal": focal_loss, "contrast": self.contrast.weight * contrast}

    def _compare(self, image_BD: Tensor, radiomic_BD: Tensor, batch: ViewBatch) -> Tensor:
        rows_ND = torch.cat([image_BD, radiomic_BD.to(image_BD.dtype)])
        ids_N = batch.unit.repeat(2)
        return nt_xent(
            rows_ND,
            exchange_rows(rows_ND, self.contrast.exchange),
            gather_detached(ids_N),
            temperature=self.contrast.temperature,
            offset=rank() * len(ids_N),
            gather=gather_detached,
            backend=self.contrast.backend,
        )

    @torch.no_grad()
    def _regions(self, embeddings: Embeddings, batch: ViewBatch) -> Regions:
        findings, heat = findings_of(batch), embeddings.get("heat")
        return regions_of(
            None if self.feedback.regions == "central" else findings,
            driving(embeddings["logits"][0], findings.labels),
            None if heat is None else self._box_of(heat[0], batch.views),
            (batch.views.shape[-2], batch.views.shape[-1]),
        )

    def _box_of(self, heat_Bgg: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        how = {"threshold": self.feedback.threshold, "shift": self.patch_shift}
        return box_of_heat(heat_Bgg, (images.shape[-2], images.shape[-1]), **how)

    @torch.no_grad()
    def _scored(self, regions: Regions, batch: ViewBatch) -> Tensor:
        """[B, F] on the scale of the running statistics, which these rows enter first."""
        assert batch.greys is not None, "the data gives no greys"
        greys, mask = cut(batch.greys[0, :, 0], regions.boxes)
        rows_BF = radiomics(greys, mask, bins=self.bins)
        if self.training:
            self.z_score.update(gather_detached(rows_BF))
        self._shares = regions.shares() | {"nan": rows_BF.isnan().any(1).float().mean()}
        wide = torch.promote_types(torch.float32, batch.views.dtype)
        scored_BF: Tensor = self.z_score(rows_BF, wide)
        return scored_BF

    def _heat(self, tokens_BPD: Tensor, directions_BD: Tensor) -> Tensor:
        """[B, g, g]: patches along the weights of Grad-CAM, or a multiple of them."""
        if not self.averages:
            directions_BD = self.encoder.sensitivity(tokens_BPD, directions_BD)
        return heat_along(tokens_BPD, directions_BD)

    def training_step(self, batch: ViewBatch, batch_idx: int) -> Tensor:
        """As every objective; logs where regions came from, and which had features without value.

        Shares of this rank's images: `train/region_annotated`, `_heat`, `_fallback`, `_nan`. They
        and `train/contrast` are those of the last step that had a contrast.
        """
        loss = super().training_step(batch, batch_idx)
        shares = {f"train/region_{k}": v.to(loss.dtype) for k, v in self._shares.items()}
        self.log_dict(shares, batch_size=batch.views.shape[1])
        return loss

    def validation_step(
        self, batch: LabelledBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """As every objective, with logits [B, C] and a box [B, C, 4] of each finding's own heat.

        Boxes are in pixels of the image; annotated ones do not enter.
        """
        features_BD, tokens_BPD = self.encoder(batch.images, tokens=True)
        logits_BC, directions_BCD = self.classifier(features_BD)
        heats = (self._heat(tokens_BPD, one_BD) for one_BD in directions_BCD.unbind(1))
        boxes = [self._box_of(heat_Bgg, batch.images)[0] for heat_Bgg in heats]
        return {
            "features": features_BD.float(),
            "labels": batch.labels,
            "patient": batch.patient,
            "image": batch.image,
            "logits": logits_BC.float(),
            "boxes": torch.stack(boxes, 1).float(),
        }

    test_step = validation_step
    predict_step = validation_step

    def require(self, data: Any) -> None:
        """As every objective; and raise ValueError where the statistics would lose their digits."""
        super().require(data)
        if self.contrast.weight > 0:
            require_wide_statistics(type(self).__name__, str(self.trainer.precision))

    def setup(self, stage: str) -> None:
        """As every objective; then tell the data which findings are read."""
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if data is not None:  # evaluation may be given loaders alone
            data.read_findings(self.findings.reading)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the names of the findings, too, which are the classifier's rows."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["findings"] = list(self.findings.reading.names)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of another objective, and of other findings."""
        super().on_load_checkpoint(checkpoint)
        require_same_findings(checkpoint.get("findings"), self.findings.reading.names)
