"""Batches with findings, boxes and greys; and what an objective reads of all that batches may have.

Labels are of three findings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.nn.functional import interpolate

from lightning_rad.schema import Findings, ViewBatch
from tests.objectives.fixed import with_gaze


def views_of(objective: Any) -> int:
    """How many views the shared tests give an objective: two, where it takes them."""
    return 1 if objective.most_views == 1 else max(2, objective.least_views)


def suited(objective: Any, batches: list[ViewBatch]) -> list[ViewBatch]:
    """The batches, with findings or gaze where the objective reads them."""
    if "gaze" in objective.needs:
        batches = with_gaze(batches, without=[2])
    return with_findings(batches) if "findings" in objective.needs else batches


def with_findings(
    batches: Sequence[ViewBatch],
    *,
    known: float = 0.7,
    boxed: Sequence[int] = (0, 3),
    seed: int = 4,
) -> list[ViewBatch]:
    """The batches with blotchy greys, labels of which a share is known, and boxes.

    boxed: rows of each batch with two boxes; others have none.
    """
    generator = torch.Generator().manual_seed(seed)
    made = []
    for batch in batches:
        views, rows, _, side, _ = batch.views.shape
        coarse = 255 * torch.rand(views * rows, 1, 6, 6, generator=generator)
        greys = interpolate(coarse, (side, side), mode="bilinear").to(torch.uint8)
        labels = torch.randint(0, 2, (views, rows, 3), generator=generator).to(batch.views.dtype)
        labels[torch.rand(views, rows, 3, generator=generator) >= known] = math.nan
        boxes = torch.full((views, rows, 2, 4), math.nan)
        finding = torch.full((views, rows, 2), -1)
        for row in boxed:
            boxes[:, row] = torch.tensor([[2, 3, 8, 9], [5, 5, 14, 15]]) * (side / 16)
            finding[:, row] = torch.tensor([row % 3, (row + 1) % 3])
        evidence = Findings(labels, boxes, finding)
        made.append(replace(batch, findings=evidence, greys=greys.unflatten(0, (views, rows))))
    return made
