"""A body with its findings, at one breath: every solid and curve that a ray can meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_rad.sharding.sources.synthetic import body as anatomy
from lightning_rad.sharding.sources.synthetic import skeleton
from lightning_rad.sharding.sources.synthetic.body import Body
from lightning_rad.sharding.sources.synthetic.devices import Device
from lightning_rad.sharding.sources.synthetic.findings import Finding
from lightning_rad.sharding.sources.synthetic.lesions import place_lesion
from lightning_rad.sharding.sources.synthetic.lung import Lung, make_lung
from lightning_rad.sharding.sources.synthetic.solids import (
    LEFT,
    RIGHT,
    Ellipsoid,
    Tube,
)


@dataclass(frozen=True)
class Chest:
    """All that attenuates; lesions pair a finding with the solids that it adds to a lung."""

    body: Body
    lungs: tuple[Lung, Lung]
    heart: Ellipsoid
    lesions: tuple[tuple[Finding, tuple[Ellipsoid, ...]], ...]
    tubes: tuple[Tube, ...]
    device: Device
    breath: float
    findings: tuple[Finding, ...]


def build_chest(body: Body, breath: float, findings: Sequence[Finding], device: Device) -> Chest:
    """Put a body together. breath: cm by which the diaphragm stands above a full inspiration."""
    enlarged = [f for f in findings if f.label == "cardiomegaly"]
    ratio = 0.54 + 0.07 * enlarged[0].grade if enlarged else body.ratio
    heart = anatomy.heart(body, ratio, breath)
    middle = anatomy.mediastinum(body, breath)
    lungs = tuple(
        make_lung(body, side, breath, findings, (heart, middle)) for side in (RIGHT, LEFT)
    )
    tubes = [skeleton.ribs(body), *skeleton.small_bones(body), skeleton.airway(body)]
    for lung in lungs:
        floor = anatomy.dome_level(body, lung.side, breath)
        trees = skeleton.vessels(body, lung.space, floor, lung.side)
        tubes += [_inside(tree, lung) for tree in trees]
    lesions = tuple((f, place_lesion(f, lungs[f.side > 0])) for f in findings if f.side)
    return Chest(
        body=body,
        lungs=(lungs[0], lungs[1]),
        heart=heart,
        lesions=tuple((f, solids) for f, solids in lesions if solids),
        tubes=(*tubes, *device.lines),
        device=device,
        breath=breath,
        findings=tuple(findings),
    )


def _inside(tree: Tube, lung: Lung) -> Tube:
    """The part of a vascular tree that runs through aerated lung."""
    keep = lung.space.contains(tree.points)
    for solid in lung.lacks:
        keep &= ~solid.contains(tree.points)
    if lung.within is not None:
        keep &= lung.within.contains(tree.points)
    return Tube(tree.points[keep], tree.length[keep], tree.radius, tree.density)
