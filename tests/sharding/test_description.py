"""What the record of a study says of an image's map of attention, and how it can be wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lightning_rad.modalities.gaze import packed
from lightning_rad.sharding.description import faults_of


def body(**more: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "file": "00.jpg",
        "view": "PA",
        "height": 32,
        "width": 32,
        "bits": 8,
        "labels": {"nodule": 1},
        "boxes": [],
        "pixels": "0" * 32,
        "fingerprint": "0" * 64,
    }
    return {"patient": "0" * 16, "study": "0" * 16, "split": "val", "images": [entry | more]}


def test_a_record_is_sound_with_a_map_and_without() -> None:
    assert faults_of(body(), "val", ("nodule",)) == []
    assert faults_of(body(saliency=packed(np.eye(16))), "val", ("nodule",)) == []


@pytest.mark.parametrize("text", [None, 7, "", "no map", packed(np.eye(16))[:-40]])
def test_a_map_that_cannot_be_read_is_a_fault(text: Any) -> None:
    (fault,) = faults_of(body(saliency=text), "val", ("nodule",))
    assert fault.startswith("its JSON's image 0 has a malformed saliency: ")
