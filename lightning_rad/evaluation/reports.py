"""The callback that measures what an objective knows of reports, in training and standalone."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_rad.evaluation.bootstrap import PatientBootstrap
from lightning_rad.evaluation.report_scores import Score, Texts, score
from lightning_rad.evaluation.report_table import (
    SAMPLE_COLUMNS,
    report_line,
    report_record,
    report_table,
    sample_text,
)
from lightning_rad.evaluation.study_rows import StudyCollector, StudyRows
from lightning_rad.evaluation.table import show
from lightning_rad.evaluation.watch import (
    cut_short,
    findings_of,
    fitting,
    folder_of,
    heading,
    logged,
    measured_weights,
    write_record,
)
from lightning_rad.manifest import write_atomically
from lightning_rad.modalities.words import Words
from lightning_rad.schema import StudyBatch

_BOOTSTRAP, _LOADER = PatientBootstrap(), 2


class ReportProbe(Callback):
    """Measures retrieval, and the reports that are written, on the third loader: of studies.

    Silent where there is none, so it may stand in every config; the first two may be empty. It only
    watches: weights, modes, gradients and the global random state stay as they are. Rows are
    gathered from all ranks, repeats dropped, sorted by study; rank 0 computes and the others
    receive its numbers.

    In `fit` it logs (`val/recall_i2t@1`, `@5`, `@10`, `val/recall_t2i@...`,
    `val/recall_chance@...`; where the objective writes reports `val/perplexity`, and with `words`
    `val/finding_f1`, `val/finding_f1_micro`, `val/finding_f1_chance`) and prints one line. What is
    generated there is the first batch of each rank, so the F1 of a fit is over these studies. In
    `validate` and `test` it is over all of them; a table with intervals is printed and
    `reports_val.json` (`reports_test...`) written to the logger's folder. The true reports and
    what was generated, of a few studies, are in `reports_val.txt` there, in `fit` those of the
    last validation. No word of a report is printed.

    Args:
        bootstrap: Settings of the intervals; `fit` goes without intervals.
        seed: Fixes the resamples and which studies are in the sample of texts.
        samples: Studies in the sample of texts; 0 writes none.
        words: Finding -> beginnings of the words that name it in a report, to measure which
            findings generated reports name (F1); null does not. Rules that suit a vocabulary named
            in full, as of synthetic reports; no labeller of real ones.
        share_samples: Hand the sample also to loggers that take text. A hosted one then holds words
            of your reports, which the terms of a data set may forbid.
    """

    def __init__(
        self,
        *,
        bootstrap: PatientBootstrap = _BOOTSTRAP,
        seed: int = 0,
        samples: int = 8,
        words: dict[str, list[str]] | None = None,
        share_samples: bool = False,
    ) -> None:
        if seed < 0:
            raise ValueError(f"report_probe.seed must be 0 or more, not {seed}")
        if samples < 0:
            raise ValueError(f"report_probe.samples must be 0 or more, not {samples}")
        for finding, named in (words or {}).items():
            if not named or not all(word.strip() for word in named):
                raise ValueError(f"report_probe.words.{finding} needs words, not {named}")
        self._bootstrap, self._seed = bootstrap, seed
        self._samples, self._share_samples = samples, share_samples
        self._words = words or None
        self._collector: StudyCollector | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse words of findings that the labels do not have, before the first step."""
        labels = getattr(trainer.datamodule, "labels", None)  # type: ignore[attr-defined]
        unknown = sorted(set(self._words or ()) - set(labels or ()))
        if unknown:
            raise ValueError(
                f"report_probe.words names {unknown}, which are no findings of the data: "
                f"{list(labels or ())}"
            )

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, if there are studies and this is not the sanity check."""
        there = len(trainer.num_val_batches) > _LOADER and not trainer.sanity_checking
        self._collector = StudyCollector() if there else None

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, if there are studies."""
        there = len(trainer.num_test_batches) > _LOADER
        self._collector = StudyCollector() if there else None

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: StudyBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what the objective made of a batch of studies."""
        if self._collector is not None and dataloader_idx == _LOADER:
            self._collector.add(outputs, batch)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score and log; outside `fit` also print and write. A part of the studies is no pool."""
        if self._collector is not None and cut_short(trainer, {_LOADER: self._collector}):
            self._collector = None
        self._finish(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score, log, print and write."""
        self._finish(trainer, pl_module, "test")

    def _finish(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._collector is None:
            return
        device = torch.device("cpu") if pl_module.device.type == "mps" else pl_module.device
        rows, self._collector = self._collector.gather(device), None
        if rows is None:
            return
        folder, here = folder_of(trainer), trainer.is_global_zero
        texts = _texts(rows, getattr(pl_module, "caption_words", None)) if here else None
        scores = self._score(trainer, rows, texts) if here else {}
        values = logged(pl_module, _values(scores, stage), device)
        if texts is not None and self._samples:
            self._write_sample(trainer, rows, texts, folder, stage)
        if fitting(trainer):
            pl_module.print(report_line(trainer.current_epoch, values))
        elif here:
            self._report(trainer, rows, scores, folder, stage)

    def _score(self, trainer: Trainer, rows: StudyRows, texts: Texts | None) -> dict[str, Score]:
        finite = rows.image.isfinite().all(1) & rows.text.isfinite().all(1)
        if not finite.all():
            warnings.warn(
                f"{int((~finite).sum())} of {len(finite)} studies have non-finite embeddings",
                stacklevel=2,
            )
        samples = 0 if fitting(trainer) else self._bootstrap.samples
        bootstrap = replace(self._bootstrap, samples=samples)
        findings = findings_of(trainer)
        return score(rows, texts, findings, self._words, bootstrap, seed=self._seed)

    def _report(
        self,
        trainer: Trainer,
        rows: StudyRows,
        scores: Mapping[str, Score],
        folder: Path,
        stage: str,
    ) -> None:
        show(report_table(scores, heading(trainer, "Reports of", stage), self._bootstrap))
        sizes = {"studies": len(rows.unit), "distinct_reports": len(torch.unique(rows.hash))}
        settings = {"bootstrap": asdict(self._bootstrap), "seed": self._seed, "words": self._words}
        file = folder / f"reports_{stage}.json"
        write_record(trainer, file, sizes | report_record(scores), settings)

    def _write_sample(
        self, trainer: Trainer, rows: StudyRows, texts: Texts, folder: Path, stage: str
    ) -> None:
        order = np.random.default_rng(self._seed).permutation(len(texts.row))[: self._samples]
        study_N = rows.unit[texts.row].tolist()
        sample = [
            [str(study_N[i]), texts.true[i], texts.generated[i]] for i in np.sort(order).tolist()
        ]
        weights = measured_weights(trainer)
        at = f"epoch {trainer.current_epoch}, step {trainer.global_step}"
        of = at if fitting(trainer) else weights["checkpoint"] or weights["note"]
        heading = (
            f"{of}: {len(sample)} of {len(rows.unit)} studies of '{stage}', as the tokeniser "
            "reads and writes"
        )
        _write(folder / f"reports_{stage}.txt", sample_text(sample, heading))
        for logger in trainer.loggers if self._share_samples else ():
            if hasattr(logger, "log_text"):
                logger.log_text(
                    f"{stage}/reports", SAMPLE_COLUMNS, sample, step=trainer.global_step
                )


def _texts(rows: StudyRows, words: Words | None) -> Texts | None:
    """The true and the generated reports in words, of the studies that one was generated for."""
    if rows.generated is None or rows.true is None:
        return None
    assert words is not None, "an objective that generates reports has `caption_words`"
    row = (rows.generated >= 0).any(1).nonzero()[:, 0]
    if not len(row):
        return None
    return Texts(
        row=row,
        true=_decoded(words, rows.true[row].tolist()),
        generated=_decoded(words, rows.generated[row].tolist()),
    )


def _decoded(words: Words, ids: Sequence[Sequence[int]]) -> list[str]:
    return [words.decode(row) for row in ids]


def _values(scores: Mapping[str, Score], stage: str) -> dict[str, float]:
    """What is logged: of each number its value, for a checkpoint may watch it; no finding alone."""
    return {
        f"{stage}/{name}": score.estimate.value
        for name, score in scores.items()
        if "/" not in name and not name.startswith("true_")
    }


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, text.encode())
