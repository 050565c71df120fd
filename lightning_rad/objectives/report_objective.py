"""What objectives that read reports have in common.

Shape letters: B studies, D features, C findings, T tokens.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from lightning_rad.modalities.reading import Reading
from lightning_rad.modalities.words import Words
from lightning_rad.objectives.base import Objective
from lightning_rad.objectives.requirements import require_report_unit, require_same_words
from lightning_rad.optim.decay_groups import decay_groups
from lightning_rad.schema import LabelledBatch, Reports, StudyBatch, ViewBatch


class ReportObjective(Objective):
    """Tells the data how its reports are to be read, and shows what it makes of studies.

    Its weights mean nothing without its tokenisers: it owns them, hands them to the data in
    `setup`, which comes after the data's own, and keeps their identity in each checkpoint.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"views", "unit", "report"})

    units: ClassVar[tuple[str, ...]] = ("study", "image")
    """What a unit of the data may be; each has one report."""

    reading: Reading
    """How reports are read; set where the objective is made."""

    text_side: ClassVar[tuple[str, ...]]
    """Names of the submodules that read text."""

    text_rate: float | None = None
    """Learning rate of these; by default the optimiser's."""

    caption_words: Words | None = None
    """The tokeniser of the reports that it generates; None where it generates none."""

    @abstractmethod
    def read_studies(self, batch: StudyBatch, *, write: bool) -> dict[str, Tensor]:
        """What is known of each study of an evaluation batch, and of its report.

        image, text: [B, D] float32, to be compared by their cosine. hash, unit, patient: [B] int64.
        labels: [B, C]. Of an objective that captions also nll: [B] float32, summed over the tokens
        of a report, tokens: [B] how many these are, and, where `write`, generated: [B, T] int64, a
        report of its own, -1 behind its end.
        """

    def require(self, data: Any) -> None:
        """As every objective; and raise ValueError for units of several reports."""
        super().require(data)
        require_report_unit(self, data, *self.units)

    def setup(self, stage: str) -> None:
        """As every objective; then hand the reading to the data."""
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if data is not None:  # evaluation may be given loaders alone
            data.read_reports(self.reading)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Decay groups, of the text side with its own rate where it has one."""
        rates = None if self.text_rate is None else dict.fromkeys(self.text_side, self.text_rate)
        return decay_groups(self, rates=rates)

    def validation_step(
        self, batch: LabelledBatch | StudyBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Features as of every objective; of studies, what it makes of them and their reports.

        To write reports takes long: in a fit it does so for a rank's first batch only.
        """
        if isinstance(batch, StudyBatch):
            fitting = self.trainer.state.fn == TrainerFn.FITTING
            return self.read_studies(batch, write=batch_idx == 0 or not fitting)
        return super().validation_step(batch, batch_idx, dataloader_idx)

    test_step = validation_step

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the identity of each tokeniser, too."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["words"] = dict(self.reading.digests)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of another objective, and of other tokenisers."""
        super().on_load_checkpoint(checkpoint)
        require_same_words(checkpoint.get("words", {}), self.reading.digests)


def report_of(batch: ViewBatch) -> Reports:
    """What the reports of a batch say; `setup` has asked for them."""
    assert batch.report is not None, "the data gives no reports"
    return batch.report


def known_of(batch: StudyBatch) -> dict[str, Tensor]:
    """What `read_studies` gives of a batch that no network has to say."""
    views = batch.views
    return {
        "hash": report_of(views).hash,
        "unit": views.unit,
        "patient": views.patient,
        "labels": batch.labels,
    }
