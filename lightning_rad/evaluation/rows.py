"""The images of a split through a frozen encoder, collected over batches and ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_rad.collectives import gather_uneven


@dataclass(frozen=True, slots=True)
class Rows:
    """Each image of a split once, in the order of the image index.

    features: [N, D] float32. labels: [N, C] float32, NaN where unknown. patient, image: [N]
    int64, patient 0 where unknown. random: [N, D] float32, the same images through an encoder
    at random init, or None.
    """

    features: Tensor
    labels: Tensor
    patient: Tensor
    image: Tensor
    random: Tensor | None = None

    def _take(self, index: Tensor) -> Rows:
        return Rows(
            features=self.features[index],
            labels=self.labels[index],
            patient=self.patient[index],
            image=self.image[index],
            random=None if self.random is None else self.random[index],
        )

    def distinct(self) -> Rows:
        """The first row of every image, sorted by image index."""
        _, first = np.unique(self.image.cpu().numpy(), return_index=True)
        return self._take(torch.from_numpy(first).to(self.image.device))


class RowCollector:
    """Keeps the rows of this rank in host memory, batch by batch, until they are gathered.

    findings: columns of the labels. with_random: whether batches come with random-init features.
    """

    def __init__(self, findings: int, *, with_random: bool) -> None:
        self._findings = findings
        self._with_random = with_random
        self._batches: list[Rows] = []

    def __len__(self) -> int:
        """Batches kept."""
        return len(self._batches)

    def add(self, outputs: Mapping[str, Tensor], random: Tensor | None) -> None:
        """Keep one batch: the outputs of `validation_step`, and random-init features if used."""
        self._batches.append(
            Rows(
                features=outputs["features"].detach().float().cpu(),
                labels=outputs["labels"].detach().float().cpu(),
                patient=outputs["patient"].cpu(),
                image=outputs["image"].cpu(),
                random=None if random is None else random.detach().float().cpu(),
            )
        )

    def gather(self, device: torch.device) -> Rows:
        """The rows of all ranks, without the repeats that pad a rank's share; a collective call.

        Communication and result are on `device`. Ranks may hold different numbers of rows, or none.
        """
        rows = Rows(
            features=self._joined([b.features for b in self._batches], device),
            labels=_concatenate([b.labels for b in self._batches], self._findings).to(device),
            patient=_concatenate([b.patient for b in self._batches]).to(device),
            image=_concatenate([b.image for b in self._batches]).to(device),
            random=self._joined([b.random for b in self._batches if b.random is not None], device)
            if self._with_random
            else None,
        )
        return Rows(
            features=rows.features,
            labels=gather_uneven(rows.labels),
            patient=gather_uneven(rows.patient),
            image=gather_uneven(rows.image),
            random=rows.random,
        ).distinct()

    def _joined(self, parts: list[Tensor], device: torch.device) -> Tensor:
        """Features of all ranks; a rank without rows learns their width from the others."""
        width = torch.tensor([p.shape[1] for p in parts[:1]], dtype=torch.int64, device=device)
        widths = gather_uneven(width)
        return gather_uneven(_concatenate(parts, int(widths[0]) if len(widths) else 0).to(device))


def _concatenate(parts: list[Tensor], *shape: int) -> Tensor:
    if parts:
        return torch.cat(parts)
    return torch.empty(0, *shape, dtype=torch.float32 if shape else torch.int64)
