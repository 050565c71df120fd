"""An objective asks for findings or gaze in its setup, and the Trainer brings them to its steps."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from lightning_rad.data.datamodule import RadiographData
from lightning_rad.data.settings import Loading
from lightning_rad.manifest import load_manifest
from lightning_rad.modalities.evidence import FindingReading, GazeReading
from lightning_rad.modalities.gaze import Saliency
from lightning_rad.schema import Findings, Gaze, LabelledBatch, ViewBatch
from tests.data.evidence import SETTINGS, known_of, looked_of


class Listens(LightningModule):
    """Learns one number, and keeps what its steps were given."""

    def __init__(self, reading: FindingReading | GazeReading) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self._reading = reading
        self.seen: list[Any] = []
        self.validated: list[tuple[int, Any]] = []

    def setup(self, stage: str) -> None:
        data = self.trainer.datamodule
        if isinstance(self._reading, FindingReading):
            data.read_findings(self._reading)
        else:
            data.read_gaze(self._reading)

    def training_step(self, batch: ViewBatch, batch_idx: int) -> Tensor:
        self.seen.append((batch.unit.tolist(), float(batch.views.sum()), held(batch)))
        if batch.findings is not None:
            torch.testing.assert_close((batch.greys / 255 - 0.5) / 0.25, batch.views)
        halves = [batch.rows(slice(0, 3)), batch.rows(slice(3, 8))]
        together = [[*one, *other] for one, other in zip(*map(per_view, halves), strict=True)]
        assert together == per_view(batch)
        return self.weight * batch.views.mean()

    def validation_step(self, batch: LabelledBatch, i: int, dataloader_idx: int = 0) -> None:
        assert batch.images.is_floating_point()
        one = batch.findings or batch.gaze
        assert one is not None
        first = one.labels if isinstance(one, Findings) else one.map
        assert len(first) == len(batch.image)
        self.validated.append((dataloader_idx, type(one)))

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def held(batch: ViewBatch) -> list[Any]:
    if batch.findings is not None:
        return known_of(batch.findings)
    assert batch.gaze is not None
    return looked_of(batch.gaze)


def per_view(batch: ViewBatch) -> list[list[Any]]:
    """What is held of each view, and its greys where there are some."""
    rows = len(batch.unit)
    every = held(batch)
    views = [every[i : i + rows] for i in range(0, len(every), rows)]
    greys = [] if batch.greys is None else [view.flatten(1).tolist() for view in batch.greys]
    return views + greys


def run(shards: Path, module: Listens, steps: int, resume: str | None = None) -> Trainer:
    data = RadiographData(
        str(shards), **(SETTINGS | {"loading": Loading(threads=2 * (not resume))})
    )
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=2,
        limit_test_batches=2,
    )
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=False)
    return trainer


@pytest.mark.parametrize("what", ["findings", "gaze"])
def test_a_run_that_goes_on_reads_what_the_whole_run_reads(
    tiny_shards: Path, tmp_path: Path, what: str
) -> None:
    names = load_manifest(tiny_shards).labels[:4]
    reading = (
        FindingReading(names, labelled=0.5)
        if what == "findings"
        else GazeReading(Saliency(side=16))
    )
    whole, first, second = (Listens(reading) for _ in range(3))
    trainer = run(tiny_shards, whole, 13)
    run(tiny_shards, first, 8).save_checkpoint(tmp_path / "eight.ckpt")
    run(tiny_shards, second, 13, resume=str(tmp_path / "eight.ckpt"))
    assert len(whole.seen) == 13
    assert first.seen + second.seen == whole.seen
    kind = Findings if what == "findings" else Gaze
    assert set(whole.validated) == {(0, kind), (1, kind)}
    for again in (trainer.validate, trainer.test):
        whole.validated.clear()
        again(whole, datamodule=trainer.datamodule, verbose=False)
        assert set(whole.validated) == {(0, kind), (1, kind)}
