"""Studies with reports, and an objective that reads and writes them, beside the tiny images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from lightning_rad.modalities.report import text_hash
from lightning_rad.modalities.words import Words, train_words
from lightning_rad.schema import Reports, StudyBatch, ViewBatch
from tests.evaluation.tiny import SIDE, Data, Encoder, Loader, Objective

LIMIT = 40
STUDIES = 26
WORDS = {"effusion": ["effusion"], "nodule": ["nodul"]}
SECRET = "fluid"  # a word of reports that must not be printed


def report_of(effusion: int, nodule: int, study: int) -> str:
    first = f"effusion with {SECRET}" if effusion else "no effusion"
    second = "a nodule is seen" if nodule else "no nodule"
    return f"{first} . {second} ." + (f" film {study} ." if study % 4 else "")


def labels_of(study: int) -> tuple[int, int, int]:
    return int(study % 3 == 0), int(study % 5 < 2), 0


TEXTS = [report_of(*labels_of(study)[:2], study) for study in range(STUDIES)]


@cache
def words() -> Words:
    return Words(train_words(TEXTS, vocabulary=80), limit=LIMIT, keep_end=True)


def studies(rows: list[int]) -> StudyBatch:
    """View 0 holds what the tiny objective takes for the image's embedding, view 1 the text's."""
    generator = torch.Generator().manual_seed(0)
    views = torch.randn(2, STUDIES, 1, SIDE, SIDE, generator=generator)
    views[1] += 0.4 * views[0]
    unit = torch.tensor(rows)
    ids = [torch.from_numpy(words().encode(TEXTS[study])) for study in rows]
    tokens = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=-1)
    hashes = torch.tensor([text_hash(TEXTS[study]) for study in rows])
    report = Reports(hashes, torch.zeros(len(rows), dtype=torch.bool), {"caption": tokens})
    batch = ViewBatch(views[:, unit], unit + 100, unit // 2 + 1, unit.expand(2, -1), report)
    return StudyBatch(batch, torch.tensor([labels_of(study) for study in rows]).float())


class StudyLoader(Loader):
    """Batches of some of the studies, in a given order."""

    def __init__(self, rows: Tensor, size: int = 7) -> None:
        self.rows, self.size = rows, size

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.size)

    def __iter__(self) -> Iterator[StudyBatch]:  # type: ignore[override]
        for rows in self.rows.split(self.size):
            yield studies(rows.tolist())


class StudyData(Data):
    """count: studies there are."""

    def __init__(self, order: Any = lambda rows: rows, count: int = STUDIES) -> None:
        super().__init__(order)
        self.count = count

    def val_dataloader(self) -> list[Loader]:
        return [*super().val_dataloader(), StudyLoader(self.order(torch.arange(self.count)))]

    test_dataloader = val_dataloader


class Reader(Objective):
    """Writes the true report of every study but each fourth, of which it writes that all is normal.

    Outside `fit` for every batch, in it for the first. writes: False reads only.
    """

    def __init__(self, encoder: Encoder | None = None, *, writes: bool = True) -> None:
        super().__init__(encoder)
        self.caption_words = words() if writes else None

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        if not isinstance(batch, StudyBatch):
            return super().validation_step(batch, batch_idx, dataloader_idx)
        views, report = batch.views, batch.views.report
        assert report is not None
        read = {
            "image": views.views[0].flatten(1),
            "text": views.views[1].flatten(1),
            "hash": report.hash,
            "unit": views.unit,
            "patient": views.patient,
            "labels": batch.labels,
        }
        if self.caption_words is not None:
            tokens = report.tokens["caption"]
            read["tokens"] = (tokens[:, 1:] >= 0).sum(1)
            read["nll"] = 0.5 * read["tokens"] + 0.01 * (views.unit - 100)
            if batch_idx == 0 or self.trainer.state.fn != TrainerFn.FITTING:
                read["generated"] = self._written(tokens, views.unit - 100)
        return read

    test_step = validation_step

    def _written(self, tokens: Tensor, study: Tensor) -> Tensor:
        normal = torch.from_numpy(words().encode(report_of(0, 0, 0)))
        generated = torch.full((len(tokens), LIMIT), -1)
        generated[:, : tokens.shape[1]] = tokens
        generated[study % 4 == 1] = -1
        generated[study % 4 == 1, : len(normal)] = normal
        return generated
