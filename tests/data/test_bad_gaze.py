"""Gaze that cannot be understood counts as none, is told once, and is no other image's."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_rad.data.settings import Loading
from lightning_rad.data.views.whole_image import WholeImage
from lightning_rad.modalities.evidence import GazeReading
from lightning_rad.modalities.gaze import Saliency
from tests.data.evidence import batches_of, data_of, edited, looked_of
from tests.data.reports import source_of

GAZE = GazeReading(Saliency("recorded", side=32, spread=0.02))

DAMAGED = {
    "no JSON": b"{",
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "not UTF-8": b'{"00": "\xff"}',
    "words": b'{"00": [["left", 1, 2]], "01": [["left", 1, 2]]}',
    "too few numbers": b'{"00": [[1, 2]], "01": [[1, 2]]}',
    "a number": b'{"00": 3, "01": 3}',
    "beyond floats": b'{"00": [[1'
    + b"0" * 400
    + b', 1, 1]], "01": [[1'
    + b"0" * 400
    + b", 1, 1]]}",
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_gaze_counts_as_none_and_is_told_once(
    tiny_shards: Path, tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    source, study = source_of(tiny_shards), 5
    mine = np.flatnonzero(source.index.images["study"] == study).tolist()
    shards = edited(tiny_shards, tmp_path / "bad", members={(study, "gaze"): DAMAGED[what]})
    whole: dict[str, Any] = {"views": [WholeImage(16)] * 2, "loading": Loading(threads=2)}
    good = batches_of(data_of(tiny_shards, GAZE, **whole), 20)
    with caplog.at_level(logging.WARNING):
        batches = batches_of(data_of(shards, GAZE, **whole), 20)
    met = 0
    for before, after in zip(good, batches, strict=True):
        assert torch.equal(before.image, after.image)
        assert torch.equal(before.pixels, after.pixels)
        for row, image in enumerate(after.image[0].tolist()):
            here = (slice(None), slice(row, row + 1))
            if image in mine:
                met += 1
                assert not after.gaze.map[here].any()
                assert after.gaze.points[here].isnan().all()
            else:
                assert looked_of(after.gaze.at(here)) == looked_of(before.gaze.at(here))
    assert met >= 2
    told = [r.getMessage() for r in caplog.records if "without gaze" in r.getMessage()]
    assert len(told) == 1
    assert f"key {source.index.studies[study]['key'].decode()}" in told[0]
