from __future__ import annotations

from itertools import combinations

import numpy as np

from lightning_rad.sharding.sources.synthetic.findings import (
    BOTH_SIDES,
    FILLS_A_SIDE,
    LABELS,
    ZONES,
    courses,
)


def many(n: int, studies: int) -> list[list[tuple]]:
    return [courses(np.random.default_rng([9, i]), studies) for i in range(n)]


def test_every_finding_is_neither_rare_nor_usual_at_any_study() -> None:
    found = many(1500, 3)
    for study in range(3):
        for label in LABELS:
            share = np.mean([any(f.label == label for f in c[study]) for c in found])
            assert 0.15 < share < 0.35, (label, study, share)


def test_a_share_of_the_studies_is_normal() -> None:
    assert 0.2 < np.mean([not c[0] for c in many(1000, 1)]) < 0.4


def test_the_first_studies_do_not_depend_on_how_many_follow() -> None:
    for i in range(40):
        short = courses(np.random.default_rng([1, i]), 2)
        assert courses(np.random.default_rng([1, i]), 5)[:2] == short


def test_a_lasting_finding_stays_where_it_is_and_others_come_and_go() -> None:
    changes = 0
    for course in many(200, 2):
        for f in course[0]:
            if f.label in ("nodule", "cardiomegaly"):
                assert f in course[1]
        changes += {f.label for f in course[0]} != {f.label for f in course[1]}
    assert changes > 60


def test_findings_that_hide_each_other_do_not_share_a_lung() -> None:
    for course in many(400, 2):
        for one, two in combinations(course[-1], 2):
            if one.side and one.side == two.side:
                labels = {one.label, two.label}
                assert not labels <= FILLS_A_SIDE
                assert "pneumothorax" not in labels or not labels & {"nodule", "consolidation"}


def test_sides_and_zones_are_used_alike_and_edema_takes_both() -> None:
    found = [f for c in many(800, 1) for f in c[0]]
    sides = [f.side for f in found if f.label in ("nodule", "pneumothorax", "atelectasis")]
    assert abs(np.mean(sides)) < 0.12
    zones = [f.zone for f in found if f.label == "nodule"]
    assert all(0.2 < zones.count(zone) / len(zones) < 0.5 for zone in ZONES)
    assert BOTH_SIDES["edema"] == 1.0
    edema = [f.side for f in found if f.label == "edema"]
    assert edema.count(1) == edema.count(-1) > 100
