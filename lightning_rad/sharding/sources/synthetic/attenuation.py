"""What a chest takes from every ray, and which part of it each finding is responsible for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from lightning_rad.schema import Box
from lightning_rad.sharding.sources.synthetic import body as anatomy
from lightning_rad.sharding.sources.synthetic import skeleton
from lightning_rad.sharding.sources.synthetic.body import Body
from lightning_rad.sharding.sources.synthetic.chest import Chest
from lightning_rad.sharding.sources.synthetic.findings import Finding
from lightning_rad.sharding.sources.synthetic.lung import Lung
from lightning_rad.sharding.sources.synthetic.projection import (
    Camera,
    Map,
    deposit,
    interval,
    meet,
    path,
    without,
)

WATER: Final = 0.2
"""Attenuation of water and soft tissue per cm, near 65 keV (NIST XCOM: 0.20)."""

LESION: Final = {"nodule": 2.0, "consolidation": 1.0, "atelectasis": 1.1, "edema": 0.5}
"""Attenuation that a lesion adds to lung at its densest, as a share of water's over lung's.

Above 1 is denser than soft tissue: nodules are calcified ones, so that they show at 96 pixels.
"""

VISIBLE: Final = 0.06
"""A finding's box takes in the rays on which it is at least this share of its densest ray."""


@dataclass(frozen=True)
class Shadow:
    """attenuation: [H, W] along every ray. findings: with each, the rays that it changes."""

    attenuation: Map
    findings: tuple[tuple[Finding, Map], ...]


def cast(chest: Chest, camera: Camera) -> Shadow:
    """The shadow of a chest for one position of tube and detector."""
    body = chest.body
    total = WATER * path(anatomy.torso(body, camera.view == "LATERAL"), camera)
    found: list[tuple[Finding, Map]] = []
    for lung in chest.lungs:
        aerated, pleural = _fill(lung, camera)
        total -= WATER * (1.0 - body.lung) * aerated
        if lung.pleura == "pneumothorax":
            total -= WATER * pleural
        found += [
            (f, pleural) for f in chest.findings if (f.label, f.side) == (lung.pleura, lung.side)
        ]
        lesions = _lesions(lung, aerated, chest, camera)
        found += lesions
        total += sum((added for _, added in lesions), np.zeros_like(total))
    heart = path(chest.heart, camera)
    total += 0.06 * WATER * heart
    found += [(f, heart) for f in chest.findings if f.label == "cardiomegaly"]
    total += _bones(body, camera)
    for part, density in anatomy.soft_parts(body, chest.breath):
        total += density * WATER * path(part, camera)
    for line in chest.tubes:
        shell = deposit(line, camera, line.radius)
        if line.hollow:
            shell = shell - 0.8 * deposit(line, camera, line.hollow * line.radius)
        total += line.density * shell
    for block in chest.device.blocks:
        total += 2.0 * path(block, camera)
    return Shadow(np.maximum(total, 0.0), tuple(found))


def _lesions(lung: Lung, aerated: Map, chest: Chest, camera: Camera) -> list[tuple[Finding, Map]]:
    """What each lesion of a lung adds; none adds more than filling all the air would."""
    gap = WATER * (1.0 - chest.body.lung)
    added = []
    for finding, solids in chest.lesions:
        if finding.side == lung.side:
            length = np.zeros_like(aerated)
            for solid in solids:
                length += path(solid, camera)
            added.append((finding, gap * np.minimum(LESION[finding.label] * length, aerated)))
    return added


def _fill(lung: Lung, camera: Camera) -> tuple[Map, Map]:
    """Length of aerated lung, and of what lies in the pleural space, along every ray."""
    space = interval(lung.space, camera)
    lacks = [interval(solid, camera) for solid in lung.lacks]
    free = without(space, lacks)
    if lung.within is None:
        return free, np.zeros_like(free)
    aerated = without(meet(space, interval(lung.within, camera)), lacks)
    return aerated, np.maximum(free - aerated, 0.0)


def _bones(body: Body, camera: Camera) -> Map:
    """What spine, sternum and shoulder blades add."""
    spine, pitch = skeleton.vertebrae(body)
    _, rows = camera.rays(float(np.mean(spine.slices[:, 1]) * camera.frame[1][2]))
    disc = 0.5 + 0.5 * np.cos(2.0 * np.pi * (rows + 9.0) / pitch)
    density = (0.16 - 0.11 * disc**4) * body.bone
    total: Map = density[:, None].astype(np.float32) * path(spine, camera)
    total += 0.14 * body.bone * path(skeleton.sternum(body), camera)
    abducted = 0.0 if camera.view == "AP" else 3.5
    for blade in skeleton.scapulae(body, abducted):
        total += 0.16 * body.bone * path(blade, camera)
    return total


def box_of(finding: Finding, shadow: Map) -> Box | None:
    """The rectangle round a finding's shadow, in pixels; None where it is not in the picture."""
    seen = shadow > max(VISIBLE * float(shadow.max()), 1e-4)
    columns, rows = np.flatnonzero(seen.any(axis=0)), np.flatnonzero(seen.any(axis=1))
    if not len(columns):
        return None
    x, y = float(columns[0]), float(rows[0])
    return Box(finding.label, x, y, float(columns[-1] + 1) - x, float(rows[-1] + 1) - y)
