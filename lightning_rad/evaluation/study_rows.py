"""What an objective made of the studies of a split, collected over batches and ranks.

Shape letters: N studies, B studies of a batch, D features, C findings, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from lightning_rad.collectives import gather_uneven
from lightning_rad.schema import PADDING, StudyBatch

_VECTORS: Final = {
    "unit": torch.int64,
    "patient": torch.int64,
    "hash": torch.int64,
    "nll": torch.float32,
    "tokens": torch.int64,
}
_MATRICES: Final = {
    "image": torch.float32,
    "text": torch.float32,
    "labels": torch.float32,
    "generated": torch.int64,
    "true": torch.int64,
}
_FIELDS: Final = _VECTORS | _MATRICES
_ABSENT: Final = -1


@dataclass(frozen=True, slots=True)
class StudyRows:
    """Each study once, in the order of the study index.

    unit, patient, hash: [N] int64, patient 0 where unknown, hash of the report as read. image,
    text: [N, D] float32. labels: [N, C] float32, NaN where unknown. Of objectives that write
    reports, else None: nll [N] float32 in nats and tokens [N] int64, over which perplexity is;
    true, generated: [N, T] int64, tokens of the report and of what was written, -1 behind the end
    and all -1 where nothing was.
    """

    unit: Tensor
    patient: Tensor
    hash: Tensor
    image: Tensor
    text: Tensor
    labels: Tensor
    nll: Tensor | None = None
    tokens: Tensor | None = None
    true: Tensor | None = None
    generated: Tensor | None = None


class StudyCollector:
    """Keeps the rows of this rank in host memory, batch by batch, until they are gathered."""

    def __init__(self) -> None:
        self._batches: list[dict[str, Tensor]] = []

    def __len__(self) -> int:
        """Batches kept."""
        return len(self._batches)

    def add(self, outputs: Mapping[str, Tensor], batch: StudyBatch) -> None:
        """Keep one batch: what `read_studies` gave, and the tokens of the true reports."""
        kept = {
            name: outputs[name].detach().to("cpu", kind)
            for name, kind in _FIELDS.items()
            if name in outputs
        }
        report = batch.views.report
        if "nll" in kept and report is not None:
            kept["true"] = report.tokens["caption"].cpu()
        self._batches.append(kept)

    def gather(self, device: torch.device) -> StudyRows | None:
        """The studies of all ranks, each once; None where no rank has any; a collective call.

        Communication and result are on `device`. Ranks may hold different numbers of rows, or none.
        """
        whole = {
            name: gather_uneven(self._joined(name, width).to(device))
            for name, width in self._widths(device).items()
            if width != _ABSENT
        }
        if not whole:
            return None
        _, first = np.unique(whole["unit"].cpu().numpy(), return_index=True)
        index = torch.from_numpy(first).to(device)
        return StudyRows(**{name: rows[index] for name, rows in whole.items()})

    def _widths(self, device: torch.device) -> dict[str, int]:
        """The most columns that any rank has of each field, 0 of a vector; a collective call."""
        own = [
            max((_width(b[name]) for b in self._batches if name in b), default=_ABSENT)
            for name in _FIELDS
        ]
        widest = gather_uneven(torch.tensor([own], device=device)).amax(0).tolist()
        return dict(zip(_FIELDS, widest, strict=True))

    def _joined(self, name: str, width: int) -> Tensor:
        """A field over the batches; only what was generated may be missing in some of them."""
        shape = (width,) if name in _MATRICES else ()
        parts = [torch.empty(0, *shape, dtype=_FIELDS[name])]
        for batch in self._batches:
            nothing = batch["unit"].new_empty(len(batch["unit"]), 0)
            part = batch.get(name, nothing) if name == "generated" else batch[name]
            filled = part.new_full((len(part), *shape), PADDING)
            filled[(slice(None), *(slice(n) for n in part.shape[1:]))] = part
            parts.append(filled)
        return torch.cat(parts)


def _width(rows: Tensor) -> int:
    return rows.shape[1] if rows.ndim > 1 else 0
