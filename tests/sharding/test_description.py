"""What the record of a study says of boxes, maps and gaze, and how it can be wrong."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from lightning_rad.modalities.gaze import packed
from lightning_rad.sharding.description import faults_of, faults_of_gaze


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
    assert faults_of(body(saliency=None), "val", ("nodule",)) == []


@pytest.mark.parametrize("text", [7, "", "no map", packed(np.eye(16))[:-40]])
def test_a_map_that_cannot_be_read_is_a_fault(text: Any) -> None:
    (fault,) = faults_of(body(saliency=text), "val", ("nodule",))
    assert fault.startswith("its JSON's image 0 has a malformed saliency: ")


BOX: dict[str, Any] = {"label": "nodule", "x": 4, "y": 4, "w": 8, "h": 8}


@pytest.mark.parametrize(
    "said",
    [
        {"w": 0},
        {"h": -3},
        {"x": -1},
        {"w": 29},
        {"y": math.nan},
        {"w": math.inf},
        {"x": 10**400},
        {"x": "4"},
        {"w": True},
        {"label": None},
    ],
    ids=str,
)
def test_a_box_that_is_none_of_its_image_is_a_fault_and_the_others_are_not(
    said: dict[str, Any],
) -> None:
    assert faults_of(body(boxes=[BOX]), "val", ("nodule",)) == []
    (fault,) = faults_of(body(boxes=[BOX, BOX | said, BOX]), "val", ("nodule",))
    assert fault.startswith("its JSON's image 0 has a box that is malformed or leaves it: ")
    assert len(fault) < 250


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("[1]", "its gaze is no mapping"),
        ("null", "its gaze is no mapping"),
        ('{"00": 3}', "its gaze of image 00 is no list"),
        ('{"02": [[0.1, 0.1, 1]]}', "its gaze of image 02 is of no image"),
        ('{"x": [[0.1, 0.1, 1]]}', "its gaze of image x is of no image"),
        ('{"00": [[0.1, 0.1]]}', "has fixation 0 that is not [x, y, seconds]"),
        ('{"00": [[0.1, 0.1, 1], {"x": 1}]}', "has fixation 1 that is not [x, y, seconds]"),
        ('{"01": [[0.1, NaN, 1]]}', "has fixation 0 that is not [x, y, seconds]"),
        ('{"01": [[0.1, 1e400, 1]]}', "has fixation 0 that is not [x, y, seconds]"),
        ('{"01": [[0.1, "0.2", 1]]}', "has fixation 0 that is not [x, y, seconds]"),
        ('{"01": [[0.1, 0.1, -1]]}', "has fixation 0 of negative duration"),
    ],
)
def test_gaze_that_is_none_is_a_fault(said: str, fault: str) -> None:
    (found,), _ = faults_of_gaze(json.loads(said), {0, 1})
    assert fault in found


def test_fixations_outside_or_of_no_duration_are_counted_and_no_fault() -> None:
    rows = [[0, 0.999, 0.2], [1.0, 0.5, 0.2], [-0.01, 0.5, 0.2], [0.5, 0.5, 0]]
    assert faults_of_gaze({"00": rows, "01": []}, {0, 1}) == ([], 3)
