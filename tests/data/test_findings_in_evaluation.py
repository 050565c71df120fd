"""Evaluation comes with the findings of whole pictures, and hides nothing."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_rad.data.settings import Evaluation
from lightning_rad.data.views.whole_image import WholeImage
from lightning_rad.modalities.evidence import FindingReading
from lightning_rad.schema import LabelledBatch
from tests.data.evidence import box, data_of, edited, rectangle


@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_evaluation_hides_nothing_and_shows_boxes_of_the_whole_picture(
    tiny_shards: Path, tmp_path: Path, names: tuple[str, ...], stage: str
) -> None:
    def entry(image: int, said: dict[str, Any]) -> dict[str, Any]:
        boxes = [box(names[1], 0, 0, 150, 120), box(names[0], 150, 120, 300, 240)]
        return said | {"boxes": boxes[: image % 3], "labels": {names[2]: image % 2}}

    shards, scored = tiny_shards, "test" if stage == "test" else "val"
    for split in ("train", scored):
        to = tmp_path / split
        shards = edited(shards, to, entry=entry, picture=rectangle, split=split)
    reading = FindingReading((names[2], names[1], names[0]), labelled=0.0, boxed=0.0)
    evaluation = Evaluation(WholeImage(60), batch=7)
    views = {"views": [WholeImage(60)], "evaluation": evaluation}
    data = data_of(shards, reading, stage=stage, **views)
    for loader in data.val_dataloader():
        for raw in loader:
            batch: LabelledBatch = data.on_after_batch_transfer(raw, 0)
            assert batch.labels.shape[1] == len(data.labels)
            assert batch.gaze is None
            for row, image in enumerate(batch.image.tolist()):
                assert float(batch.findings.labels[row, 0]) == image % 2
                assert batch.findings.labels[row, 1:].isnan().all()
                finding = batch.findings.finding[row]
                assert finding[finding >= 0].tolist() == [1, 2][: image % 3]
                if image % 3 == 2:
                    expected = torch.tensor([[0, 6, 30, 30], [30, 30, 60, 54]]).float()
                    torch.testing.assert_close(
                        batch.findings.boxes[row, :2], expected, atol=0.02, rtol=0
                    )


def test_findings_unknown_to_the_set_that_is_evaluated_are_told(
    tiny_shards: Path,
    other_shards: Path,
    tmp_path: Path,
    names: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    fewer = edited(other_shards, tmp_path / "fewer", labels=names[:1])
    evaluation = Evaluation(WholeImage(16), batch=8, manifest=str(fewer))
    with caplog.at_level(logging.WARNING):
        data_of(tiny_shards, FindingReading(names), evaluation=evaluation)
    told = [r.getMessage() for r in caplog.records if "has no labels" in r.getMessage()]
    assert len(told) == 1
    assert str(list(names[1:])) in told[0]
