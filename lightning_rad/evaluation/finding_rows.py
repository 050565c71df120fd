"""What is said and known of the findings of a split's images, collected over batches and ranks.

Shape letters: N images, C findings, K annotated boxes of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_rad.collectives import gather_uneven
from lightning_rad.modalities.heat import fallback
from lightning_rad.schema import PADDING, LabelledBatch


@dataclass(frozen=True, slots=True)
class FindingRows:
    """Each image once, in the order of the image index; boxes in pixels of the image as shown.

    image, patient: [N] int64, patient 0 where unknown. logits, labels: [N, C] float32, labels 1, 0
    or NaN. predicted, fixed: [N, C, 4] and [N, 4] float32, a box of each finding, and the one that
    is taken without looking. boxes, finding: [N, K, 4] float32 and [N, K] int64, annotated ones and
    the column of each, NaN and -1 where there are fewer.
    """

    image: Tensor
    patient: Tensor
    logits: Tensor
    labels: Tensor
    predicted: Tensor
    fixed: Tensor
    boxes: Tensor
    finding: Tensor


class FindingCollector:
    """Keeps the rows of this rank in host memory, batch by batch, until they are gathered."""

    def __init__(self) -> None:
        self._batches: list[FindingRows] = []

    def __len__(self) -> int:
        """Batches kept."""
        return len(self._batches)

    def add(self, outputs: Mapping[str, Tensor], batch: LabelledBatch) -> None:
        """Keep one batch, if it comes with findings and the objective tells them."""
        if "logits" not in outputs or batch.findings is None:
            return
        predicted, known = outputs["boxes"].detach().float().cpu(), batch.findings
        size = (batch.images.shape[-2], batch.images.shape[-1])
        self._batches.append(
            FindingRows(
                image=outputs["image"].cpu(),
                patient=outputs["patient"].cpu(),
                logits=outputs["logits"].detach().float().cpu(),
                labels=known.labels.float().cpu(),
                predicted=predicted,
                fixed=fallback(predicted, size).expand(len(predicted), 4),
                boxes=known.boxes.float().cpu(),
                finding=known.finding.cpu(),
            )
        )

    def gather(self, device: torch.device) -> FindingRows | None:
        """The rows of all ranks, each image once; None where no rank has any; a collective call.

        Communication and result are on `device`. Ranks may hold different numbers of rows, or none.
        """
        sizes = [(b.logits.shape[1], b.boxes.shape[1]) for b in self._batches] or [(0, 0)]
        own = torch.tensor(sizes, device=device).amax(0, keepdim=True)
        findings, most = gather_uneven(own).amax(0).tolist()
        if not findings:
            return None
        parts = [_empty(findings, most), *(_padded(batch, most) for batch in self._batches)]
        columns = zip(*map(_columns, parts), strict=True)
        gathered = [gather_uneven(torch.cat(column).to(device)) for column in columns]
        _, first = np.unique(gathered[0].cpu().numpy(), return_index=True)
        index = torch.from_numpy(first).to(device)
        return FindingRows(*(column[index] for column in gathered))


def _columns(rows: FindingRows) -> list[Tensor]:
    return [getattr(rows, field.name) for field in fields(rows)]


def _padded(rows: FindingRows, most: int) -> FindingRows:
    """With as many places for boxes as the row of all ranks that has the most."""
    lacks = most - rows.boxes.shape[1]
    boxes = pad(rows.boxes, (0, 0, 0, lacks), value=torch.nan)
    finding = pad(rows.finding, (0, lacks), value=PADDING)
    return replace(rows, boxes=boxes, finding=finding)


def _empty(findings: int, most: int) -> FindingRows:
    number, told = torch.empty(0, dtype=torch.int64), torch.empty(0, findings)
    return FindingRows(
        image=number,
        patient=number,
        logits=told,
        labels=told,
        predicted=torch.empty(0, findings, 4),
        fixed=torch.empty(0, 4),
        boxes=torch.empty(0, most, 4),
        finding=torch.empty(0, most, dtype=torch.int64),
    )
