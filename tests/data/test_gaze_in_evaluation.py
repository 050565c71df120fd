"""Evaluation comes with the gaze of whole pictures."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lightning_rad.data.settings import Evaluation
from lightning_rad.data.views.whole_image import WholeImage
from lightning_rad.manifest import load_manifest
from lightning_rad.modalities.evidence import GazeReading
from lightning_rad.modalities.gaze import Saliency, heat_map
from tests.data.evidence import data_of
from tests.data.reports import source_of

GAZE = GazeReading(Saliency("recorded", side=32, spread=0.02))


@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_evaluation_comes_with_the_gaze_of_whole_pictures(tiny_shards: Path, stage: str) -> None:
    data = data_of(tiny_shards, GAZE, stage=stage, views=[WholeImage(16)])
    _, score = data.val_dataloader()
    source = source_of(tiny_shards, "test" if stage == "test" else "val")
    looked = 0
    for raw in score:
        batch = data.on_after_batch_transfer(raw, 0)
        assert batch.findings is None
        assert batch.gaze.map.shape == (len(batch.image), 32, 32)
        for row, image in enumerate(batch.image.tolist()):
            own = heat_map(source.fixations(image), (32, 32), side=32, spread=0.02)
            expected = np.zeros((32, 32)) if own is None else own
            np.testing.assert_allclose(batch.gaze.map[row], expected, atol=1e-6)
            looked += own is not None
    assert looked > 3
    assert data.numbers == (0.5, 0.25)


@pytest.mark.parametrize("splits", [("val",), ("train",), ()])
def test_a_set_that_is_looked_at_in_one_split_alone_cannot_measure_gaze(
    tiny_shards: Path, tmp_path: Path, splits: tuple[str, ...]
) -> None:
    """What is foretold stands beside the mean map of the train split."""
    one = Path(shutil.copytree(tiny_shards, tmp_path / "one"))
    kept = [shard for shard in load_manifest(one).shards if shard.split in (*splits, "test")]
    replace(load_manifest(one), labels=(), fields=("gaze",), shards=tuple(kept)).save()
    evaluation = Evaluation(WholeImage(16), manifest=str(one))
    with pytest.raises(ValueError, match="or gaze in train and val; it has"):
        data_of(tiny_shards, GAZE, evaluation=evaluation, views=[WholeImage(16)])
