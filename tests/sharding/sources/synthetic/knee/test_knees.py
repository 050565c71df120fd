"""The pictures of knees: what the grade is about can be measured in them, boxed and looked at."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from lightning_rad.schema import Radiograph
from lightning_rad.sharding.sources.synthetic.knee import SyntheticKnees
from lightning_rad.sharding.sources.synthetic.knee.bones import Knee
from lightning_rad.sharding.sources.synthetic.knee.gaze import look
from lightning_rad.sharding.sources.synthetic.knee.joint import DEFINITE, draw_build, draw_wear
from lightning_rad.sharding.sources.synthetic.knee.shadow import cast, flesh
from lightning_rad.sharding.sources.synthetic.knee.source import draw_camera
from lightning_rad.sharding.sources.synthetic.projection import Camera
from lightning_rad.sharding.sources.synthetic.solids import LEFT, RIGHT


def small(patients: int = 10, **settings: Any) -> SyntheticKnees:
    return SyntheticKnees(patients, **{"seed": 4, "size": 48} | settings)


def digest(images: tuple[Radiograph, ...]) -> str:
    parts = [
        i.pixels.tobytes() + repr((i.view, dict(i.labels), i.boxes, i.fixations)).encode()
        for i in images
    ]
    return hashlib.sha256(b"|".join(parts)).hexdigest()


@cache
def looked_at() -> tuple[tuple[int, Radiograph], ...]:
    """Grade and picture of the knees of 60 patients."""
    source = small(60, size=96, max_studies=1)
    images = [image for study in source.plan()[0] for image in source.read(study).images]
    return tuple((list(image.labels.values()).index(1), image) for image in images)


def test_a_patient_is_the_same_in_a_set_of_any_size_and_in_any_order() -> None:
    few, many = small(4), pickle.loads(pickle.dumps(small(30)))
    plan = few.plan()[0]
    assert many.plan()[0][: len(plan)] == plan
    forward = [digest(few.read(study).images) for study in plan]
    assert [digest(many.read(study).images) for study in reversed(plan)] == forward[::-1]
    assert len(set(forward)) == len(plan)
    assert digest(small(4, seed=5).read(small(4, seed=5).plan()[0][0]).images) != forward[0]


def test_a_study_is_both_knees_of_a_patient_who_keeps_the_grades() -> None:
    source = small(25, size=32, max_studies=3)
    grades: dict[str, list[list[Any]]] = {}
    for study in source.plan()[0]:
        images = source.read(study).images
        assert [i.view for i in images] == ["AP", "AP"]
        assert all(sum(v for v in i.labels.values() if v) == 1 for i in images)
        grades.setdefault(study.patient, []).append([dict(i.labels) for i in images])
    assert {len(visits) for visits in grades.values()} == {1, 2, 3}
    assert all(visit == visits[0] for visits in grades.values() for visit in visits)
    assert any(visits[0][0] != visits[0][1] for visits in grades.values())


def test_an_unknown_grade_is_unknown_as_a_whole_and_changes_nothing_else() -> None:
    known, partly = small(20, size=32), small(20, size=32, unlabelled_fraction=0.4)
    hidden = []
    for study in known.plan()[0]:
        for a, b in zip(known.read(study).images, partly.read(study).images, strict=True):
            assert np.array_equal(a.pixels, b.pixels)
            hidden.append(set(b.labels.values()) == {None})
            assert hidden[-1] or dict(a.labels) == dict(b.labels)
    assert 0.2 < np.mean(hidden) < 0.6


def knees(n: int) -> list[tuple[Knee, Camera]]:
    """Knees of all grades in turn, without osteophytes, and how each is taken."""
    drawn = []
    for k in range(n):
        rng = np.random.default_rng([9, k])
        build, wear = draw_build(rng), replace(draw_wear(rng, k % 5, 0), spurs=())
        knee = Knee(build, wear, RIGHT if k % 2 else LEFT, float(rng.uniform(-0.055, 0.055)))
        drawn.append((knee, draw_camera(rng, build, 128)))
    return drawn


def test_the_space_measured_on_the_shadow_falls_with_the_grade() -> None:
    spaces = []
    for knee, camera in knees(40):
        worse = knee.wear.worse
        corners = [knee.point(worse * x, y) for x in (1.6, 2.4) for y in (-1.5, 0.7)]
        column, row, _ = camera.pixels(np.array(corners))
        added = cast(knee, camera).attenuation - flesh(knee, camera)
        part = added[int(row.min()) : int(row.max()), int(column.min()) : int(column.max()) + 1]
        spaces.append(float((part.mean(axis=1) < 0.35).sum()) * camera.pitch)
    assert spearmanr(spaces, [knee.wear.grade for knee, _ in knees(40)])[0] < -0.8


def test_boxes_hold_what_they_are_named_for_and_lie_in_the_picture() -> None:
    for grade, image in looked_at():
        labels = [box.label for box in image.boxes]
        assert ("osteophyte" in labels) == (grade >= 2)
        assert grade == 2 or labels.count("narrowing") >= 1 or grade < 2
        assert grade > 1 or "narrowing" not in labels
        for box in image.boxes:
            assert -1 < box.x < box.x + box.w <= 97
            assert -1 < box.y < box.y + box.h <= 97


def test_the_box_of_an_osteophyte_covers_what_the_osteophyte_changes() -> None:
    rng = np.random.default_rng(5)
    build = draw_build(rng)
    camera = draw_camera(rng, build, 128)
    wear = draw_wear(rng, 4, 0)
    with_all = cast(Knee(build, wear, RIGHT, 0.0), camera)
    without = cast(Knee(build, replace(wear, spurs=wear.spurs[1:]), RIGHT, 0.0), camera)
    changed = with_all.attenuation - without.attenuation
    spur, part = with_all.spurs[0]
    assert spur.length >= DEFINITE
    assert changed.max() > 0.1
    assert np.allclose(changed, part, atol=1e-4)


def test_readers_look_at_the_joint() -> None:
    near, total, area = 0.0, 0.0, []
    for k, (knee, camera) in enumerate(knees(40)):
        corners = np.array([knee.point(-4.2, -1.3), knee.point(4.2, 0.5)])
        column, row, _ = camera.pixels(corners)
        area.append(np.ptp(column) * np.ptp(row) / camera.size**2)
        for f in look(np.random.default_rng(k), knee, camera):
            assert 0 < f.x < 1
            assert 0 < f.y < 1
            assert f.seconds > 0
            inside = column.min() < f.x * camera.size < column.max()
            inside &= row.min() < f.y * camera.size < row.max()
            total += f.seconds
            near += f.seconds * bool(inside)
    assert near / total > 5 * np.mean(area)


def test_bone_is_brighter_than_what_lies_beside_it() -> None:
    mean = np.mean([image.pixels.astype(float) for _, image in looked_at()], axis=0)
    assert mean[30:38, 30:66].mean() > mean[30:38, :6].mean() + 30
    assert mean[58:64, 35:60].mean() > mean[58:64, :6].mean() + 30


@pytest.mark.parametrize(
    ("name", "value"),
    [("patients", 0), ("seed", -1), ("size", 16), ("max_studies", 0), ("unlabelled_fraction", 2)],
)
def test_an_argument_out_of_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name}="):
        SyntheticKnees(**{"patients": 3, name: value})
