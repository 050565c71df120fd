"""Predicted and recorded attention of the images of a split, collected over batches and ranks.

Shape letters: N images, B images of a batch, S side of a map, K fixations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_rad.collectives import gather_uneven
from lightning_rad.schema import LabelledBatch


@dataclass(frozen=True, slots=True)
class GazeRows:
    """Each image once, in the order of the image index.

    image, patient: [N] int64, patient 0 where unknown. map: [N, S, S] float32, predicted. target:
    [N, S, S] float32, recorded, all 0 where nobody looked. points: [N, K, 2] float32, (x, y)
    fractions of the view, NaN padding.
    """

    image: Tensor
    patient: Tensor
    map: Tensor
    target: Tensor
    points: Tensor


class GazeCollector:
    """Keeps the rows of this rank in host memory, batch by batch, until they are gathered."""

    def __init__(self) -> None:
        self._batches: list[GazeRows] = []

    def __len__(self) -> int:
        """Batches kept."""
        return len(self._batches)

    def add(self, outputs: Mapping[str, Tensor], batch: LabelledBatch) -> None:
        """Keep one batch, if it comes with gaze and the objective foretells it."""
        if "map" not in outputs or batch.gaze is None:
            return
        self._batches.append(
            GazeRows(
                image=outputs["image"].cpu(),
                patient=outputs["patient"].cpu(),
                map=outputs["map"].detach().float().cpu(),
                target=batch.gaze.map.float().cpu(),
                points=batch.gaze.points.float().cpu(),
            )
        )

    def gather(self, device: torch.device) -> GazeRows | None:
        """The rows of all ranks, each image once; None where no rank has any; a collective call.

        Communication and result are on `device`. Ranks may hold different numbers of rows, or none.
        """
        sizes = [(b.map.shape[1], b.points.shape[1]) for b in self._batches] or [(0, 0)]
        own = torch.tensor(sizes, device=device).amax(0, keepdim=True)
        side, most = gather_uneven(own).amax(0).tolist()
        if not side:
            return None
        whole = GazeRows(
            image=self._gathered("image", (), device),
            patient=self._gathered("patient", (), device),
            map=self._gathered("map", (side, side), device),
            target=self._gathered("target", (side, side), device),
            points=self._gathered("points", (most, 2), device),
        )
        _, first = np.unique(whole.image.cpu().numpy(), return_index=True)
        index = torch.from_numpy(first).to(device)
        return GazeRows(
            whole.image[index],
            whole.patient[index],
            whole.map[index],
            whole.target[index],
            whole.points[index],
        )

    def _gathered(self, name: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
        kind = torch.float32 if shape else torch.int64
        parts = [torch.empty(0, *shape, dtype=kind)]
        for batch in self._batches:
            part: Tensor = getattr(batch, name)
            if name == "points":  # batches are padded to their own longest row
                filled = part.new_full((len(part), *shape), float("nan"))
                filled[:, : part.shape[1]] = part
                part = filled
            parts.append(part)
        return gather_uneven(torch.cat(parts).to(device))
