"""What objectives that read reports make of studies: which ones they write for, and whose it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer

from lightning_rad.objectives.refers import REFERS
from lightning_rad.schema import StudyBatch, ViewBatch
from tests.objectives.fixed import FixedBatches, fit_steps, random_batches, with_reports
from tests.objectives.test_image_report import image_report
from tests.objectives.test_refers import refers

STUDIES = 6


class WithTest(FixedBatches):
    """Hands out for a test what it hands out for validation."""

    def test_dataloader(self) -> Any:
        return self.val_dataloader()


def batch(views: int = 1) -> ViewBatch:
    [made] = with_reports(random_batches(1, rows=STUDIES, views=views))
    return replace(made, patient=torch.arange(STUDIES) // 2 + 7)


def labelled(given: ViewBatch) -> StudyBatch:
    return StudyBatch(given, torch.arange(2.0 * len(given.unit)).view(-1, 2))


def told_to_write() -> tuple[Any, list[bool]]:
    """An objective, and whether it was told to write, batch by batch."""
    told: list[bool] = []
    objective: Any = image_report()
    read = objective.read_studies

    def listening(studies: StudyBatch, *, write: bool) -> Any:
        told.append(write)
        return read(studies, write=write)

    objective.read_studies = listening
    return objective, told


def test_a_fit_writes_the_reports_of_its_first_batch_alone() -> None:
    objective, told = told_to_write()
    looking: dict[str, Any] = {
        "limit_val_batches": 3,
        "num_sanity_val_steps": 0,
        "val_check_interval": 1,
    }
    fit_steps(objective, [batch()] * 2, unit="study", studies=[labelled(batch())] * 3, **looking)
    assert told == [True, False, False] * 2


@pytest.mark.filterwarnings("ignore:The '.*' does not have many workers")
@pytest.mark.parametrize("stage", ["validate", "test"])
def test_outside_a_fit_every_report_is_written(stage: str) -> None:
    objective, told = told_to_write()
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
    }
    trainer = Trainer(accelerator="cpu", precision="64-true", enable_model_summary=False, **quiet)
    data = WithTest([batch()], unit="study", studies=[labelled(batch())] * 3)
    getattr(trainer, stage)(objective, datamodule=data, verbose=False)
    assert told == [True, True, True]


def lively() -> REFERS:
    """REFERS with images so loud that it writes different reports of them."""
    objective = refers().eval()
    with torch.no_grad():
        for p in objective.encoder.parameters():
            p.mul_(20)
    return objective


@pytest.mark.parametrize(("make", "views"), [(image_report, 1), (image_report, 2), (lively, 3)])
@torch.no_grad()
def test_a_row_is_of_its_own_study_whoever_else_is_in_the_batch(
    make: Callable[[], Any], views: int
) -> None:
    objective, given = make().eval(), labelled(batch(views))
    together = objective.read_studies(given, write=True)
    for name in ("hash", "unit", "patient", "labels"):
        source = given if name == "labels" else given.views
        wanted = given.views.report.hash if name == "hash" else getattr(source, name)  # type: ignore[union-attr]
        assert torch.equal(together[name], wanted), name
    for row in range(STUDIES):
        one = StudyBatch(given.views.rows(slice(row, row + 1)), given.labels[row : row + 1])
        for name, value in objective.read_studies(one, write=True).items():
            torch.testing.assert_close(together[name][row], value[0], rtol=1e-6, atol=1e-6)
    if "generated" in together:
        assert len({tuple(row) for row in together["generated"].tolist()}) >= 3
