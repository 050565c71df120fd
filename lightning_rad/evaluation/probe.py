"""The callback that measures the encoder on labelled images, in training and standalone."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_rad.evaluation.assessment import Assessment, Assessor
from lightning_rad.evaluation.bootstrap import PatientBootstrap
from lightning_rad.evaluation.grades import columns_of
from lightning_rad.evaluation.knn import NearestNeighbours
from lightning_rad.evaluation.linear import LinearProbe
from lightning_rad.evaluation.random_init import RandomInit
from lightning_rad.evaluation.rows import RowCollector, Rows
from lightning_rad.evaluation.table import record, show, table, write
from lightning_rad.evaluation.watch import (
    cut_short,
    findings_of,
    fitting,
    folder_of,
    heading,
    logged,
    measured_weights,
    untrained,
)
from lightning_rad.schema import LabelledBatch

_KNN, _LINEAR, _BOOTSTRAP = NearestNeighbours(), LinearProbe(), PatientBootstrap()


class FrozenProbe(Callback):
    """Fits kNN and a linear probe on the first validation (or test) loader, scores the second.

    Further loaders are not for it; where only these have batches it is silent. It only watches:
    weights, modes, gradients and the global random state stay as they are. Rows are gathered from
    all ranks, repeats dropped, sorted by image index; rank 0 computes and the others receive its
    numbers, so a result does not depend on the number of ranks.

    In `fit` it logs (`val/linear_auroc`, `val/knn_auroc`, `val/linear_ap`,
    `val/linear_auroc/<finding>`, `val/rankme`, `val/uniformity`, `val/feature_std`,
    `val/patient_alignment` if some patient has two images, `random/...`) and prints one line; in
    `validate` and `test` it also prints a table with intervals and writes `probe_val.json` and
    `probe_val.csv` (`probe_test...`) to the logger's folder.

    Args:
        knn: Settings of the nearest neighbours.
        linear: Settings of the linear probe.
        bootstrap: Settings of the intervals; `fit` goes without intervals.
        seed: Fixes the random-init encoder, the held-out patients and the resamples.
        random_baseline: Measure a random-init encoder of the same configuration beside it.
        must_beat_random: After `validate` or `test` exit with an error unless the macro linear
            AUROC is above the random-init encoder's; these then need a checkpoint.
        exclusive: Lists of labels that are the levels of one grade, in their order; each adds
            `val/linear_accuracy`, `linear_mae`, `linear_kappa` (quadratic), `knn_accuracy`.
    """

    def __init__(
        self,
        *,
        knn: NearestNeighbours = _KNN,
        linear: LinearProbe = _LINEAR,
        bootstrap: PatientBootstrap = _BOOTSTRAP,
        seed: int = 0,
        random_baseline: bool = True,
        must_beat_random: bool = False,
        exclusive: Sequence[Sequence[str]] = (),
    ) -> None:
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, not {seed}")
        if must_beat_random and not random_baseline:
            raise ValueError("must_beat_random: true needs random_baseline: true")
        self._assessor = Assessor(knn, linear, bootstrap, seed)
        self._random = RandomInit(seed, wanted=random_baseline)
        self._must_beat_random = must_beat_random
        self._exclusive = tuple(exclusive)
        self._collectors: list[RowCollector] = []
        self._judged = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget what an earlier run measured; refuse grades of what is no label, now."""
        self._random.forget()
        self._judged = False
        if self._exclusive and (labels := findings_of(trainer)):
            columns_of(self._exclusive, labels)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse to pass `must_beat_random` where empty loaders kept every hook from running."""
        if self._must_beat_random and stage in ("validate", "test") and not self._judged:
            raise SystemExit(
                "must_beat_random: nothing was measured, the labelled loaders are empty"
            )

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a probe, unless this is the sanity check."""
        if not trainer.sanity_checking:
            self._begin(trainer, pl_module, trainer.num_val_batches)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a probe."""
        self._begin(trainer, pl_module, trainer.num_test_batches)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: LabelledBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the features of a batch and, where still needed, its random-init features."""
        if self._collectors and dataloader_idx < len(self._collectors):
            random = self._random.features(trainer, batch.images)
            self._collectors[dataloader_idx].add(outputs, random)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit, score, log; outside `fit` also print and write. A part of the rows is no probe."""
        if cut_short(trainer, dict(enumerate(self._collectors))):
            self._collectors = []
        if self._collectors:
            self._finish(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit, score, log, print and write."""
        if self._collectors:
            self._finish(trainer, pl_module, "test")

    def _begin(
        self, trainer: Trainer, pl_module: LightningModule, batches: Sequence[int | float]
    ) -> None:
        """batches: of each loader."""
        self._collectors = []
        if len(batches) < 2:
            raise ValueError(
                f"FrozenProbe needs two labelled loaders, one to fit on and one to score; "
                f"the datamodule gives {len(batches)}"
            )
        if not any(batches[:2]):
            return
        if self._must_beat_random and not fitting(trainer) and untrained(trainer):
            raise ValueError(
                "must_beat_random: true needs a trained encoder; name its file with --ckpt_path"
            )
        findings = findings_of(trainer)
        if fitting(trainer) and not findings:  # images are there for another probe
            return
        grades = columns_of(self._exclusive, findings)
        self._assessor = replace(self._assessor, grades=grades)
        made = self._random.begin(trainer, pl_module)
        self._collectors = [RowCollector(len(findings), with_random=made) for _ in range(2)]

    def _finish(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        device = torch.device("cpu") if pl_module.device.type == "mps" else pl_module.device
        fit, score = (collector.gather(device) for collector in self._collectors)
        self._collectors = []
        assessment = self._assess(trainer, fit, score)
        own = {} if assessment is None else assessment.values(stage)
        values = logged(pl_module, own, device)
        if fitting(trainer):
            pl_module.print(_line(trainer.current_epoch, values))
            return
        folder = folder_of(trainer)
        if assessment is not None:
            self._report(trainer, assessment, folder, stage)
        self._judge(values, stage)

    def _assess(self, trainer: Trainer, fit: Rows, score: Rows) -> Assessment | None:
        """On rank 0 the assessment, elsewhere None."""
        here = trainer.is_global_zero
        assessor = self._assessor
        if fitting(trainer):
            assessor = replace(assessor, bootstrap=replace(assessor.bootstrap, samples=0))
        random = self._random.read(assessor, fit, score, here=here)
        if not here:
            return None
        _warn(fit, score)
        pretrained = assessor.read(fit.features, score.features, fit, score)
        findings = findings_of(trainer)
        return Assessment(findings, fit, score, pretrained, random, assessor.grades)

    def _report(self, trainer: Trainer, assessment: Assessment, folder: Path, stage: str) -> None:
        show(table(assessment, heading(trainer, "Frozen encoder on", stage)))
        found = {"stage": stage} | measured_weights(trainer) | record(assessment)
        write(folder / f"probe_{stage}", found | {"settings": asdict(self._assessor)})

    def _judge(self, values: dict[str, float], stage: str) -> None:
        self._judged = True
        if not self._must_beat_random:
            return
        pretrained, random = values[f"{stage}/linear_auroc"], values["random/linear_auroc"]
        if not pretrained > random:
            raise SystemExit(
                f"must_beat_random: the pretrained macro linear AUROC, {pretrained:.4f}, is not "
                f"above random init's, {random:.4f}"
            )


def _line(epoch: int, values: dict[str, float]) -> str:
    random = values.get("random/linear_auroc")
    beside = "" if random is None else f" (random init {random:.3f})"
    accuracy = values.get("val/linear_accuracy")
    graded = "" if accuracy is None else f"grade accuracy {accuracy:.3f}, "
    return (
        f"epoch {epoch}: linear AUROC {values['val/linear_auroc']:.3f}{beside}, "
        f"kNN AUROC {values['val/knn_auroc']:.3f}, {graded}"
        f"RankMe {values.get('val/rankme', float('nan')):.1f}"
    )


def _warn(fit: Rows, score: Rows) -> None:
    """Say what makes the numbers meaningless: features that are not finite, shared patients."""
    for name, rows in (("fitting", fit), ("scoring", score)):
        broken = int((~rows.features.isfinite().all(1)).sum())
        if broken:
            warnings.warn(
                f"{broken} of {len(rows.image)} {name} rows have non-finite features", stacklevel=2
            )
    patients = torch.unique(fit.patient[fit.patient != 0])
    shared = int(torch.isin(torch.unique(score.patient), patients).sum())
    if shared:
        warnings.warn(
            f"{shared} patients are both fitted on and scored: the metrics are too high",
            stacklevel=2,
        )
