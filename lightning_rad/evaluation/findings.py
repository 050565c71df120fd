"""The callback that measures what an objective tells of findings, and where it sees them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from rich.table import Table

from lightning_rad.evaluation.bootstrap import Estimate, PatientBootstrap, clusters
from lightning_rad.evaluation.finding_rows import FindingCollector, FindingRows
from lightning_rad.evaluation.localisation import Located, located
from lightning_rad.evaluation.metrics import Measured, measure
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
_SHOWN = (0.1, 0.3, 0.5)


@dataclass(frozen=True, slots=True)
class FindingScore:
    """The classifier's own AUROC, and how many annotated boxes are found.

    fixed: by one and the same box for every image, which is what is found without looking.
    """

    auroc: Measured
    located: Located
    fixed: Located


class FindingProbe(Callback):
    """Scores an objective's own findings on the second validation (or test) loader.

    AUROC of its logits; the share of annotated boxes that the box of their finding meets, at an
    intersection over union of 0.1 to 0.7, beside that of a fixed box in every image. Silent where
    the objective tells no findings or none were read, so it may stand in every config. It only
    watches. Rows are gathered from all ranks, repeats dropped, sorted by image; rank 0 computes and
    the others receive its numbers.

    In `fit` it logs (`val/finding_auroc`, `val/finding_auroc/<finding>`, `val/localised@0.1` to
    `@0.7`, `val/localised_fixed@...`; macro means, without what no image defines) and prints one
    line; in `validate` and `test` it also prints a table with intervals and writes
    `findings_val.json` (`findings_test.json`) to the logger's folder.

    Args:
        bootstrap: Settings of the intervals; `fit` goes without intervals.
        seed: Fixes the resamples.
    """

    def __init__(self, *, bootstrap: PatientBootstrap = _BOOTSTRAP, seed: int = 0) -> None:
        if seed < 0:
            raise ValueError(f"finding_probe.seed must be 0 or more, not {seed}")
        self._bootstrap, self._seed = bootstrap, seed
        self._collector: FindingCollector | None = None

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
        """Keep what was told of a batch and what is known."""
        if self._collector is not None and dataloader_idx == 1:
            self._collector.add(outputs, batch)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score and log; outside `fit` also print and write. A part of the rows is no score."""
        if self._collector is not None and cut_short(trainer, {1: self._collector}):
            self._collector = None
        self._finish(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score, log, print and write."""
        self._finish(trainer, pl_module, "test")

    def _begin(self, loaders: int) -> None:
        self._collector = FindingCollector() if loaders >= 2 else None

    def _finish(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._collector is None:
            return
        device = torch.device("cpu") if pl_module.device.type == "mps" else pl_module.device
        rows, self._collector = self._collector.gather(device), None
        if rows is None:
            return
        names: tuple[str, ...] = tuple(pl_module.finding_names)  # type: ignore[arg-type]
        folder, here = folder_of(trainer), trainer.is_global_zero
        score = self._score(trainer, rows) if here else None
        values = logged(pl_module, _values(score, names, stage) if score else {}, device)
        if fitting(trainer):
            pl_module.print(_line(trainer.current_epoch, values))
        elif score is not None:
            self._report(trainer, len(rows.image), score, names, folder, stage)

    def _score(self, trainer: Trainer, rows: FindingRows) -> FindingScore:
        finite_N = rows.logits.isfinite().all(1)
        if not finite_N.all():
            told = f"{int((~finite_N).sum())} of {len(finite_N)} images have logits without value"
            warnings.warn(told, stacklevel=2)
        samples = 0 if fitting(trainer) else self._bootstrap.samples
        bootstrap = replace(self._bootstrap, samples=samples)
        patient = rows.patient.cpu().numpy()
        logits, labels = (x.cpu().double().numpy() for x in (rows.logits, rows.labels))
        measured = measure(logits, labels, clusters(patient), bootstrap, seed=self._seed)
        predicted, boxes, finding = (x.cpu() for x in (rows.predicted, rows.boxes, rows.finding))
        fixed = rows.fixed.cpu()[:, None].expand_as(predicted)
        where, without = (
            located(each, boxes, finding, patient, bootstrap=bootstrap, seed=self._seed)
            for each in (predicted, fixed)
        )
        return FindingScore(measured.auroc, where, without)

    def _report(
        self,
        trainer: Trainer,
        images: int,
        score: FindingScore,
        names: tuple[str, ...],
        folder: Path,
        stage: str,
    ) -> None:
        show(_table(score, names, heading(trainer, "Findings of", stage), self._bootstrap))
        settings = {"bootstrap": asdict(self._bootstrap), "seed": self._seed}
        body = {"images": images} | _record(score, names)
        write_record(trainer, folder / f"findings_{stage}.json", body, settings)


def _values(score: FindingScore, names: tuple[str, ...], stage: str) -> dict[str, float]:
    """All that is defined: a finding of one class has no AUROC, one without a box is nowhere."""
    values = {f"{stage}/finding_auroc": score.auroc.macro().value}
    values |= {
        f"{stage}/finding_auroc/{n}": score.auroc.finding(c).value for c, n in enumerate(names)
    }
    for name, found in (("localised", score.located), ("localised_fixed", score.fixed)):
        for least, one in zip(found.thresholds, found.macro, strict=True):
            values[f"{stage}/{name}@{least}"] = one.value
    return {name: value for name, value in values.items() if not math.isnan(value)}


def _line(epoch: int, values: Mapping[str, float]) -> str:
    shown = [f"AUROC {values.get('val/finding_auroc', float('nan')):.3f}"]
    for least in _SHOWN:
        if (found := values.get(f"val/localised@{least}")) is not None:
            fixed = values[f"val/localised_fixed@{least}"]
            shown.append(f"boxes found at {least} {found:.3f} (fixed box {fixed:.3f})")
    return f"epoch {epoch}: findings " + ", ".join(shown)


def _table(
    score: FindingScore, names: tuple[str, ...], title: str, bootstrap: PatientBootstrap
) -> Table:
    caption = (
        "boxes found at an intersection over union; fixed: by one box for all images\n"
        f"{bootstrap.confidence:.0%} intervals over {bootstrap.samples} resamples of the patients"
    )
    table = Table(title=title, caption=caption, title_justify="left")
    heads = ["finding", "AUROC", "boxes"]
    heads += [f"{kind}@{least}" for least in _SHOWN for kind in ("found", "fixed")]
    for head in heads:
        table.add_column(head, justify="left" if head == "finding" else "right")
    where = [score.located.thresholds.index(least) for least in _SHOWN]

    def cells(found: list[Estimate], fixed: list[Estimate]) -> list[str]:
        return [text for t in where for text in (interval(found[t]), f"{fixed[t].value:.3f}")]

    for c, name in enumerate(names):
        n = int(score.located.n[c])
        numbers = cells(score.located.of[c], score.fixed.of[c]) if n else ["-"] * 2 * len(where)
        table.add_row(name, interval(score.auroc.finding(c)), str(n), *numbers)
    table.add_section()
    n = int(score.located.n.sum())
    numbers = cells(score.located.macro, score.fixed.macro) if n else ["-"] * 2 * len(where)
    table.add_row("macro", interval(score.auroc.macro()), str(n), *numbers)
    return table


def _record(score: FindingScore, names: tuple[str, ...]) -> dict[str, Any]:
    def at(found: list[Estimate]) -> dict[str, Any]:
        return {str(t): plain(one) for t, one in zip(score.located.thresholds, found, strict=True)}

    findings = [
        {
            "finding": name,
            "auroc": plain(score.auroc.finding(c)),
            "boxes": int(score.located.n[c]),
            "localised": at(score.located.of[c]),
            "localised_fixed": at(score.fixed.of[c]),
        }
        for c, name in enumerate(names)
    ]
    macro = {
        "auroc": plain(score.auroc.macro()),
        "auroc_findings": score.auroc.macro_findings,
        "boxes": int(score.located.n.sum()),
        "boxed_findings": int((score.located.n > 0).sum()),
        "localised": at(score.located.macro),
        "localised_fixed": at(score.fixed.macro),
    }
    return {"findings": findings, "macro": macro}
