"""The callback that measures how well gaze is foretold, in training and standalone."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from rich.table import Table

from lightning_rad.evaluation.bootstrap import PatientBootstrap
from lightning_rad.evaluation.gaze_rows import GazeCollector, GazeRows
from lightning_rad.evaluation.gaze_scores import SHOWN, GazeScore, score
from lightning_rad.evaluation.table import interval, plain, show
from lightning_rad.evaluation.watch import (
    cut_short,
    fitting,
    folder_of,
    heading,
    logged,
    write_record,
)
from lightning_rad.schema import LabelledBatch

_BOOTSTRAP = PatientBootstrap()


class GazeProbe(Callback):
    """Scores predicted maps of attention on the second validation (or test) loader.

    Beside them stands the mean map of the readers of the first loader: what is known of gaze
    without looking at the picture. Silent where the objective foretells no gaze or none was
    recorded, so it may stand in every config. It only watches. Rows are gathered from all ranks,
    repeats dropped, sorted by image; rank 0 computes and the others receive its numbers.

    In `fit` it logs (`val/gaze_cc`, `gaze_sim`, `gaze_kld`, `gaze_nss`, `gaze_auc`, and each as
    `..._mean_map`) and prints one line; in `validate` and `test` it also prints a table with
    intervals and writes `gaze_val.json` (`gaze_test.json`) to the logger's folder.

    Args:
        bootstrap: Settings of the intervals; `fit` goes without intervals.
        seed: Fixes the resamples.
    """

    def __init__(self, *, bootstrap: PatientBootstrap = _BOOTSTRAP, seed: int = 0) -> None:
        if seed < 0:
            raise ValueError(f"gaze_probe.seed must be 0 or more, not {seed}")
        self._bootstrap, self._seed = bootstrap, seed
        self._collectors: list[GazeCollector] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, unless this is the sanity check."""
        self._begin(0 if trainer.sanity_checking else len(trainer.num_val_batches))

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self._begin(len(trainer.num_test_batches))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: LabelledBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what was foretold of a batch and what was recorded."""
        if dataloader_idx < len(self._collectors):
            self._collectors[dataloader_idx].add(outputs, batch)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score and log; outside `fit` also print and write. A part of the rows is no score."""
        if self._collectors and cut_short(trainer, dict(enumerate(self._collectors))):
            self._collectors = []
        self._finish(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score, log, print and write."""
        self._finish(trainer, pl_module, "test")

    def _begin(self, loaders: int) -> None:
        self._collectors = [GazeCollector() for _ in range(2)] if loaders >= 2 else []

    def _finish(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not self._collectors:
            return
        device = torch.device("cpu") if pl_module.device.type == "mps" else pl_module.device
        fit, rows = (collector.gather(device) for collector in self._collectors)
        self._collectors = []
        if rows is None or not rows.target.any():
            return
        folder, here = folder_of(trainer), trainer.is_global_zero
        scores = self._score(trainer, fit, rows) if here else {}
        values = logged(pl_module, _values(scores, stage), device)
        if fitting(trainer):
            pl_module.print(_line(trainer.current_epoch, values))
        elif here:
            self._report(trainer, rows, scores, folder, stage)

    def _score(
        self, trainer: Trainer, fit: GazeRows | None, rows: GazeRows
    ) -> dict[str, GazeScore]:
        finite = rows.map.isfinite().flatten(1).all(1)
        if not finite.all():
            warnings.warn(
                f"{int((~finite).sum())} of {len(finite)} predicted maps are not finite",
                stacklevel=2,
            )
        samples = 0 if fitting(trainer) else self._bootstrap.samples
        return score(fit, rows, replace(self._bootstrap, samples=samples), seed=self._seed)

    def _report(
        self,
        trainer: Trainer,
        rows: GazeRows,
        scores: Mapping[str, GazeScore],
        folder: Path,
        stage: str,
    ) -> None:
        show(_table(scores, heading(trainer, "Gaze of", stage), self._bootstrap))
        sizes = {
            "images": len(rows.image),
            "with_gaze": int((rows.target.flatten(1).sum(1) > 0).sum()),
        }
        settings = {"bootstrap": asdict(self._bootstrap), "seed": self._seed}
        write_record(trainer, folder / f"gaze_{stage}.json", sizes | _record(scores), settings)


def _values(scores: Mapping[str, GazeScore], stage: str) -> dict[str, float]:
    values = {f"{stage}/gaze_{name}": s.predicted.value for name, s in scores.items()}
    return values | {
        f"{stage}/gaze_{name}_mean_map": s.mean_map.value for name, s in scores.items()
    }


def _line(epoch: int, values: Mapping[str, float]) -> str:
    shown = ", ".join(
        f"{name.upper()} {values[f'val/gaze_{name}']:.3f} "
        f"(mean map {values[f'val/gaze_{name}_mean_map']:.3f})"
        for name in ("cc", "kld", "nss")
    )
    return f"epoch {epoch}: gaze {shown}"


def _table(scores: Mapping[str, GazeScore], title: str, bootstrap: PatientBootstrap) -> Table:
    caption = (
        "mean map: of the readers of the first loader's images\n"
        f"{bootstrap.confidence:.0%} intervals over {bootstrap.samples} resamples of the patients"
    )
    table = Table(title=title, caption=caption, title_justify="left")
    for column in ("measure", "n", "predicted", "mean map", "predicted - mean map"):
        table.add_column(column, justify="left" if column == "measure" else "right")
    for name, each in scores.items():
        numbers = (interval(each.predicted), interval(each.mean_map), interval(each.gain, "+"))
        table.add_row(SHOWN[name], str(each.n), *numbers)
    return table


def _record(scores: Mapping[str, GazeScore]) -> dict[str, Any]:
    return {
        "measures": {
            name: {
                "n": each.n,
                "predicted": plain(each.predicted),
                "mean_map": plain(each.mean_map),
                "gain": plain(each.gain),
            }
            for name, each in scores.items()
        }
    }
