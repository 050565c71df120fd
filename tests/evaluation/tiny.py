"""A labelled data set, an encoder and an objective small enough to probe in a second."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_rad.schema import LabelledBatch

FINDINGS = ("effusion", "nodule", "never")
SIDE = 4


def labelled(split: int, patients: int = 40) -> LabelledBatch:
    """Two or three images a patient; findings lie along fixed directions of the pixels."""
    rng = np.random.default_rng(split)
    patient = np.repeat(np.arange(1, patients + 1) + 1000 * split, rng.integers(2, 4, patients))
    labels = (rng.random((len(patient), 3)) < [0.4, 0.3, 0.0]).astype(np.float32)
    pixels = rng.normal(size=(len(patient), SIDE * SIDE)).astype(np.float32)
    pixels[:, 0] += 1.5 * labels[:, 0]
    pixels[:, 1] += 1.0 * labels[:, 1]
    labels[rng.random(labels.shape) < 0.2] = np.nan
    return LabelledBatch(
        images=torch.from_numpy(pixels).view(-1, 1, SIDE, SIDE),
        labels=torch.from_numpy(labels),
        patient=torch.from_numpy(patient),
        image=torch.arange(len(patient)) + 5000 * split,
    )


def of_one_patient(table: LabelledBatch) -> LabelledBatch:
    """The same images, of one and the same patient: every resample of the patients is the table."""
    return replace(table, patient=torch.full_like(table.patient, 7))


class StopAt(Callback):
    """Ends the validation as `training.stop.Stop` does, before later callbacks see the batch."""

    def __init__(self, loader: int, batch: int) -> None:
        self._at = batch, loader

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *at: int
    ) -> None:
        if at == self._at:
            raise StopIteration


class Loader:
    """Batches of some rows of a table, in a given order."""

    def __init__(self, table: LabelledBatch, rows: Tensor, size: int = 16) -> None:
        self.table, self.rows, self.size = table, rows, size

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.size)

    def __iter__(self) -> Iterator[LabelledBatch]:
        t = self.table
        for rows in self.rows.split(self.size):
            yield LabelledBatch(t.images[rows], t.labels[rows], t.patient[rows], t.image[rows])


class Data(LightningDataModule):
    """order(rows): which rows of a split this process sees, and in which order."""

    def __init__(self, order: Any = lambda rows: rows, tables: Any = None) -> None:
        super().__init__()
        self.labels = FINDINGS
        self.order = order
        self.tables = tables or (labelled(1), labelled(2))

    def val_dataloader(self) -> list[Loader]:
        return [Loader(t, self.order(torch.arange(len(t.image)))) for t in self.tables]

    test_dataloader = val_dataloader

    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(torch.arange(96.0).view(6, 16) / 96)  # type: ignore[arg-type]


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(SIDE * SIDE, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)
        )
        self.fresh_calls = 0

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out

    def fresh(self, seed: int) -> Encoder:
        self.fresh_calls += 1
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        torch.rand(10)
        return Encoder()


class Objective(LightningModule):
    """Learns to keep the findings' pixels, with dropout, so that its path depends on the RNG."""

    def __init__(self, encoder: Encoder | None = None) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.encoder = encoder or Encoder()

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        noisy = torch.randn(8, 1, SIDE, SIDE) + batch.sum()
        loss: Tensor = (self.encoder(noisy)[:, 0] - noisy.flatten(1)[:, 0]).square().mean()
        return loss

    def validation_step(self, batch: LabelledBatch, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return {
            "features": self.encoder(batch.images).float(),
            "labels": batch.labels,
            "patient": batch.patient,
            "image": batch.image,
        }

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def probing(folder: Path, *callbacks: Callback, **how: Any) -> Trainer:
    """A quiet trainer of one process that keeps nothing but what its probes write."""
    return Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=[*callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        devices=1,
        **how,
    )


def measured(runs: Trainer, objective: Any, data: Any, kind: str, stage: str) -> Any:
    """What `validate` or `test` logs, and the record that a probe of this kind writes, if any."""
    getattr(runs, stage)(objective, datamodule=data, verbose=False)
    logged = {k: float(v) for k, v in runs.callback_metrics.items()}
    file = Path(runs.default_root_dir) / f"{kind}_{'val' if stage == 'validate' else 'test'}.json"
    return logged, json.loads(file.read_text()) if file.exists() else None
