"""Tubes, lines and wires: what is on or in a patient who is ill, and is no finding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightning_rad.sharding.sources.synthetic.body import Body
from lightning_rad.sharding.sources.synthetic.solids import (
    LEFT,
    RIGHT,
    Array,
    Ellipsoid,
    Tube,
    bezier,
    tube,
)


@dataclass(frozen=True)
class Device:
    """The devices of one study: their names as a report spells them, and what casts a shadow."""

    names: tuple[str, ...]
    lines: tuple[Tube, ...]
    blocks: tuple[Ellipsoid, ...]


def place_devices(body: Body, rng: np.random.Generator, portable: bool) -> Device:
    """Draw the devices of one study; bedside studies (AP) have more of them."""
    often = 0.4 if portable else 0.06
    names: list[str] = []
    lines: list[Tube] = []
    blocks: list[Ellipsoid] = []
    if rng.random() < often:
        names.append("endotracheal tube")
        lines.append(_endotracheal(body))
    if rng.random() < often:
        names.append("enteric tube")
        lines.append(_enteric(body))
    if rng.random() < often + 0.04:
        names.append("central venous catheter")
        lines.append(_catheter(body))
    if rng.random() < 0.07:
        names.append("pacemaker")
        block, leads = _pacemaker(body)
        blocks.append(block)
        lines.append(leads)
    return Device(tuple(names), tuple(lines), tuple(blocks))


def _endotracheal(body: Body) -> Tube:
    end = np.array([0.1, 0.14 * body.height, -0.9])
    return tube(bezier(np.array([0.0, -13.0, 0.8]), np.array([0.0, -3.0, 0.3]), end, 80), 0.18, 0.9)


def _enteric(body: Body) -> Tube:
    down = bezier(
        np.array([0.3, -13.0, -0.5]),
        np.array([0.2, 0.4 * body.height, -3.0]),
        np.array([1.0, 0.86 * body.height, -1.5]),
        120,
    )
    turn = bezier(down[-1], down[-1] + [0.6, 3.0, 1.0], down[-1] + [4.5, 4.0, 2.0], 120)
    return tube(np.stack([down, turn]), 0.15, 1.1)


def _catheter(body: Body) -> Tube:
    neck = np.array([RIGHT * 0.30 * body.width, -5.0, 1.0])
    bend = np.array([RIGHT * 0.19 * body.width, 0.10 * body.height, 1.0])
    return tube(bezier(neck, bend, np.array([RIGHT * 2.4, 0.44 * body.height, 1.2]), 90), 0.13, 1.2)


def _pacemaker(body: Body) -> tuple[Ellipsoid, Tube]:
    pocket: Array = np.array([LEFT * 0.72 * body.width, 4.2, body.depth + 0.8])
    block = Ellipsoid(pocket, np.diag([2.2, 1.9, 0.5]))
    vein = np.array([RIGHT * 2.0, 0.22 * body.height, 1.5])
    tip = np.array([2.2, 0.72 * body.height, 4.0])
    first = bezier(pocket, np.array([2.0, 0.4, 2.0]), vein, 100)
    second = bezier(vein, np.array([RIGHT * 3.5, 0.62 * body.height, 3.0]), tip, 100)
    return block, tube(np.stack([first, second]), 0.11, 2.0)
