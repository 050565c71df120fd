"""Boxes and fixations come to evaluation as they are, whatever type the parameters have."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn

from lightning_rad.data.datamodule import RadiographData
from lightning_rad.data.settings import Evaluation
from lightning_rad.data.views.whole_image import WholeImage
from lightning_rad.modalities.evidence import FindingReading, GazeReading
from lightning_rad.modalities.gaze import Saliency
from lightning_rad.schema import LabelledBatch
from tests.data.evidence import SETTINGS, box, edited


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "32-true"])
def test_places_stay_float32_whatever_the_parameters_are(
    tiny_shards: Path, tmp_path: Path, names: tuple[str, ...], precision: Any
) -> None:
    """A bfloat16 has 8 bits: 133.25 pixels would be 133, and 0.6371 of a picture 0.637."""

    class Looks(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def setup(self, stage: str) -> None:
            data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
            data.read_findings(FindingReading(names))
            data.read_gaze(GazeReading(Saliency("recorded", side=16)))

        def validation_step(self, batch: LabelledBatch, _: int, dataloader_idx: int = 0) -> None:
            assert batch.findings is not None
            assert batch.gaze is not None
            seen[dataloader_idx].append((batch.findings.boxes, batch.gaze.points))
            assert batch.images.dtype == self.layer.weight.dtype

    def entry(image: int, said: dict[str, Any]) -> dict[str, Any]:
        return said | {"boxes": [box(names[0], 10.3, 20.7, 150.1, 120.9)]}

    shards = edited(tiny_shards, tmp_path / "boxed", entry=entry, split="val")
    evaluation = Evaluation(WholeImage(160), batch=7)
    views = {"views": [WholeImage(160)], "evaluation": evaluation}
    data = RadiographData(str(shards), **(SETTINGS | views))
    seen: dict[int, list[Any]] = defaultdict(list)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    Trainer(accelerator="cpu", precision=precision, **quiet).validate(Looks(), datamodule=data)
    points = torch.cat([one.flatten(0, 1) for _, one in seen[1]])
    boxes = torch.cat([one.flatten(0, 1) for one, _ in seen[1]])
    for places in (points, boxes):
        assert places.dtype == torch.float32
        known = places[places.isfinite()]
        assert len(known) > 8
        assert (known != known.bfloat16().float()).any()
