from __future__ import annotations

import numpy as np

from lightning_rad.schema import Box, Fixation, Radiograph
from lightning_rad.sharding.sources.synthetic import SyntheticSource


def some_images() -> list[Radiograph]:
    source = SyntheticSource(70, seed=5, size=48)
    return [image for study in source.plan()[0] for image in source.read(study).images]


def within(f: Fixation, box: Box, size: int) -> bool:
    return box.x <= f.x * size <= box.x + box.w and box.y <= f.y * size <= box.y + box.h


def test_fixations_lie_in_the_picture_and_last_as_human_ones_do() -> None:
    for image in some_images():
        assert len(image.fixations) >= 5
        for f in image.fixations:
            assert 0.0 <= f.x <= 1.0
            assert 0.0 <= f.y <= 1.0
            assert 0.05 < f.seconds < 4.0


def test_readers_look_at_a_finding_more_often_and_longer_than_at_its_mirror_image() -> None:
    on, mirrored = [], []
    for image in some_images():
        size = image.pixels.shape[0]
        if image.view == "LATERAL":
            continue
        for box in image.boxes:
            if box.label not in ("nodule", "consolidation", "atelectasis"):
                continue
            other = Box(box.label, size - box.x - box.w, box.y, box.w, box.h)
            on.append(sum(f.seconds for f in image.fixations if within(f, box, size)))
            mirrored.append(sum(f.seconds for f in image.fixations if within(f, other, size)))
    assert len(on) > 25
    assert np.mean(on) > 2.5 * np.mean(mirrored)


def test_normal_chests_are_searched_on_both_sides_and_low() -> None:
    normal = [i for i in some_images() if not any(i.labels.values()) and i.view != "LATERAL"]
    assert len(normal) >= 10
    x = np.array([f.x for image in normal for f in image.fixations])
    y = np.array([f.y for image in normal for f in image.fixations])
    assert 0.3 < (x < 0.5).mean() < 0.7
    assert (y > 0.6).mean() > 0.15
    assert (y < 0.35).mean() > 0.15
