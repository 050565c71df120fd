"""Labels go with the image, not with the study."""

import json
from pathlib import Path

import numpy as np
import simplejpeg

from lightning_rad.data.labelled import LabelledImages
from lightning_rad.data.settings import Evaluation
from lightning_rad.data.source import ShardSource
from lightning_rad.data.views.whole_image import WholeImage
from lightning_rad.manifest import IMAGE, STUDY, Index


def test_each_image_of_a_study_has_its_own_labels_and_unknown_is_nan(tmp_path: Path) -> None:
    jpeg = simplejpeg.encode_jpeg(np.full((8, 8, 1), 90, np.uint8), colorspace="GRAY")
    record = json.dumps(
        {
            "images": [
                {"file": "02.jpg", "labels": {}},
                {"file": "00.jpg", "labels": {"Effusion": 1, "Edema": 0}},
                {"file": "01.jpg", "labels": {"Effusion": 0, "Edema": None}},
                "of another make",
            ]
        }
    ).encode()
    file = tmp_path / "train-000000.tar"
    file.write_bytes(jpeg + record)
    study = (b"key", 7, len(jpeg), len(record), 0, 0, 0, 0)
    images = [(0, ordinal, 0, len(jpeg), b"jpg") for ordinal in range(3)]
    index = Index((file,), np.array([study], STUDY), np.array(images, IMAGE), np.zeros(1, np.int32))
    loader = LabelledImages(
        ShardSource(index), ("Edema", "Effusion"), Evaluation(WholeImage(8), batch=2), threads=0
    )
    assert len(loader) == 2
    labels = np.concatenate([batch.labels.numpy() for batch in loader])
    nan = float("nan")
    assert np.array_equal(labels, [[0, 1], [nan, 0], [nan, nan]], equal_nan=True)
    assert {int(p) for batch in loader for p in batch.patient} == {7}
