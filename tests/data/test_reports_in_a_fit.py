"""An objective asks for reports in its setup, and a real Trainer brings them to its steps."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from lightning_rad.data.datamodule import RadiographData
from lightning_rad.data.settings import Loading, Shuffle
from lightning_rad.modalities.reading import Reading
from lightning_rad.schema import LabelledBatch, StudyBatch, ViewBatch
from tests.data.reports import SETTINGS


class Listens(LightningModule):
    """Learns one number, and keeps what its steps were given."""

    def __init__(self, reading: Reading) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self._reading = reading
        self.seen: list[tuple[Any, ...]] = []
        self.validated: list[tuple[int, type]] = []

    def setup(self, stage: str) -> None:
        self.trainer.datamodule.read_reports(self._reading)

    def training_step(self, batch: ViewBatch, batch_idx: int) -> Tensor:
        self.seen.append(
            (
                batch.unit.tolist(),
                batch.report.hash.tolist(),
                batch.report.flipped.tolist(),
                batch.report.tokens["caption"].tolist(),
                float(batch.views.sum()),
            )
        )
        return self.weight * batch.views.mean()

    def validation_step(
        self, batch: LabelledBatch | StudyBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.validated.append((dataloader_idx, type(batch)))
        if isinstance(batch, StudyBatch):
            assert batch.views.views.is_floating_point()
            assert (batch.views.report.hash != 0).all()

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def run(
    shards: Path, module: Listens, steps: int, resume: str | None = None, threads: int = 2
) -> Trainer:
    shuffle = Shuffle(groups=4, window=16, flip=0.5)
    loading = Loading(threads=threads)
    data = RadiographData(str(shards), **(SETTINGS | {"shuffle": shuffle, "loading": loading}))
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


def test_a_run_that_goes_on_reads_the_reports_that_the_whole_run_reads(
    tiny_shards: Path, tmp_path: Path, reading: Reading
) -> None:
    """Through two data epochs; with another number of threads."""
    whole, first, second = (Listens(reading) for _ in range(3))
    run(tiny_shards, whole, 16)
    run(tiny_shards, first, 9).save_checkpoint(tmp_path / "nine.ckpt")
    run(tiny_shards, second, 16, resume=str(tmp_path / "nine.ckpt"), threads=0)
    assert len(whole.seen) == 16
    assert first.seen + second.seen == whole.seen


def test_validation_and_test_have_a_third_loader_of_studies(
    tiny_shards: Path, reading: Reading
) -> None:
    module = Listens(reading)
    trainer = run(tiny_shards, module, 7)
    kinds = {(0, LabelledBatch), (1, LabelledBatch), (2, StudyBatch)}
    assert set(module.validated) == kinds
    module.validated.clear()
    trainer.validate(module, datamodule=trainer.datamodule, verbose=False)
    assert set(module.validated) == kinds
    module.validated.clear()
    trainer.test(module, datamodule=trainer.datamodule, verbose=False)
    assert set(module.validated) == kinds
