"""A finding's box, side and height are those of the finding itself, in every view."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_rad.schema import Box
from lightning_rad.sharding.sources.synthetic.attenuation import Shadow, box_of, cast
from lightning_rad.sharding.sources.synthetic.body import Body, grow_body
from lightning_rad.sharding.sources.synthetic.chest import build_chest
from lightning_rad.sharding.sources.synthetic.devices import Device
from lightning_rad.sharding.sources.synthetic.findings import FOCAL, LABELS, ZONES, Finding
from lightning_rad.sharding.sources.synthetic.projection import Camera

SIZE = 96
BARE = Device((), (), ())
VIEWS = ("PA", "AP", "LATERAL")


def a_body(seed: int) -> Body:
    return grow_body(np.random.default_rng([77, seed]))


def a_camera(view: str, body: Body, turn: float = 0.03) -> Camera:
    field = 2.9 * body.width
    distance = 105.0 if view == "AP" else 180.0
    return Camera(view, SIZE, field / SIZE, turn, (0.0, 0.0), 0.5 * body.height, distance)


def a_finding(label: str, seed: int, side: int = 0) -> Finding:
    rng = np.random.default_rng([13, seed])
    side = 0 if label == "cardiomegaly" else side or (1 if rng.random() < 0.5 else -1)
    zone = ZONES[seed % 3] if label in FOCAL else ""
    height = 0.20 + 0.72 * (ZONES.index(zone) / 3 + 0.15 if zone else 0.1)
    place = (height, rng.random(), rng.random())
    return Finding(label, side, zone, rng.random(), place, seed)


def shadow_of(body: Body, view: str, *findings: Finding, turn: float = 0.03) -> Shadow:
    return cast(build_chest(body, 1.0, findings, BARE), a_camera(view, body, turn))


def share_outside(change: np.ndarray, box: Box, margin: int) -> float:
    """Largest change outside a box widened by `margin` pixels, over the largest anywhere."""
    outside = np.abs(change).copy()
    y, x = max(int(box.y) - margin, 0), max(int(box.x) - margin, 0)
    outside[y : int(box.y + box.h) + margin, x : int(box.x + box.w) + margin] = 0.0
    return float(outside.max() / np.abs(change).max())


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("label", LABELS)
def test_all_that_a_finding_changes_lies_in_its_box(label: str, view: str) -> None:
    for seed in range(5):
        body, finding = a_body(seed), a_finding(label, seed)
        ill, well = shadow_of(body, view, finding), shadow_of(body, view)
        ((_, part),) = ill.findings
        box = box_of(finding, part)
        assert box is not None
        change = ill.attenuation - well.attenuation
        assert np.abs(change).max() > 0.15
        assert share_outside(change, box, margin=2) < 0.10
        # and the box is no larger than what changes
        seen = np.abs(change) > 0.03 * np.abs(change).max()
        tall, wide = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        assert box.h <= np.ptp(tall) + 1 + 8
        assert box.w <= np.ptp(wide) + 1 + 8 + (0.7 * box.w if label == "cardiomegaly" else 0)


def test_a_box_of_half_the_size_is_caught_by_the_check_above() -> None:
    for label in LABELS:
        finding = a_finding(label, 1)
        ill, well = shadow_of(a_body(1), "PA", finding), shadow_of(a_body(1), "PA")
        box = box_of(finding, ill.findings[0][1])
        assert box is not None
        half = Box(label, box.x, box.y, box.w / 2, box.h / 2)
        assert share_outside(ill.attenuation - well.attenuation, half, margin=1) > 0.10, label


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("label", sorted(set(LABELS) - {"cardiomegaly"}))
def test_a_finding_of_the_right_lung_is_on_the_left_of_the_image(label: str, side: int) -> None:
    for seed in range(4):
        body, finding = a_body(seed), a_finding(label, seed, side)
        for view in ("PA", "AP"):
            ((_, part),) = shadow_of(body, view, finding, turn=0.0).findings
            columns = np.arange(SIZE) + 0.5 - SIZE / 2
            assert np.sign((part.sum(axis=0) * columns).sum()) == side


@pytest.mark.parametrize("label", sorted(FOCAL))
def test_a_lesion_is_at_one_height_in_both_views_and_in_the_zone_that_is_told(label: str) -> None:
    for seed in range(9):
        body, finding = a_body(seed), a_finding(label, seed)
        middle = {}
        for view in ("PA", "LATERAL"):
            ((_, part),) = shadow_of(body, view, finding).findings
            middle[view] = float((part.sum(axis=1) * np.arange(SIZE)).sum() / part.sum())
        assert abs(middle["PA"] - middle["LATERAL"]) < 0.06 * SIZE
        chest = build_chest(body, 1.0, [finding], BARE)
        floor = chest.lungs[finding.side > 0].dome.y[0]
        ((_, solids),) = chest.lesions
        height = np.mean([s.centre[1] for s in solids]) / floor
        assert ZONES[min(int((height - 0.20) / 0.24), 2)] == finding.zone


def test_lesions_lie_in_their_lung_clear_of_heart_and_diaphragm() -> None:
    for seed in range(30):
        body, finding = a_body(seed), a_finding("nodule", seed)
        chest = build_chest(body, 1.0, [finding], BARE)
        ((_, (solid,)),) = chest.lesions
        lung = chest.lungs[finding.side > 0]
        assert lung.space.contains(solid.centre)
        assert not any(lack.contains(solid.centre) for lack in lung.lacks)


def test_an_enlarged_heart_is_wider_than_half_the_chest_and_a_healthy_one_is_not() -> None:
    for seed in range(20):
        body = a_body(seed)
        for findings, wide in (((), False), ((a_finding("cardiomegaly", seed),), True)):
            heart = build_chest(body, 1.0, findings, BARE).heart
            ratio = np.sqrt(heart.spread[0, 0]) / body.width
            assert (ratio > 0.5) == wide
            assert 0.35 < ratio < 0.68
            assert heart.centre[0] > 0


@pytest.mark.parametrize("view", VIEWS)
def test_a_breath_moves_the_diaphragm_but_not_the_ribs(view: str) -> None:
    body = a_body(3)
    eye = a_camera(view, body)
    deep, shallow = (
        cast(build_chest(body, breath, (), BARE), eye).attenuation for breath in (0.0, 3.0)
    )
    change = np.abs(deep - shallow)
    upper, lower = change[: SIZE // 4].max(), change[SIZE // 2 :].max()
    assert upper < 0.25 * lower
