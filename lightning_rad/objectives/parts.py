"""A batch larger than the encoder has memory for: embedded part by part, compared as a whole.

Shape letters: V views, B units of this rank, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lightning_rad.schema import ViewBatch


def embed_in_parts(
    embed: Callable[[ViewBatch], dict[str, Tensor]], batch: ViewBatch, units: int | None
) -> dict[str, Tensor]:
    """What `embed` makes of the batch, [V, B, D] by name, with the activations of one part alive.

    Each part is embedded without keeping activations; backward embeds it once more, with the
    generators as they were, and takes it from the embeddings' gradient to the parameters. These
    are the steps of GradCache (arXiv:2101.06983), in one graph: loss scales, clipping and
    accumulation find an ordinary gradient, and DDP reduces it once, when the last part has
    given its share. Values and gradient are those of the whole batch where `embed` treats each unit
    by itself and leaves nothing behind. Which part is embedded anew at a time, and so the memory,
    rests on autograd's order: what was computed last goes first.

    units: of each part, the last may be smaller; None, or no fewer than B, is the whole batch at
    once and nothing is embedded twice.
    """
    if units is None or units >= len(batch.unit):
        return embed(batch)

    def embed_part(views: Tensor, part: ViewBatch) -> dict[str, Tensor]:
        return embed(replace(part, views=views))

    parts = [batch.rows(slice(i, i + units)) for i in range(0, len(batch.unit), units)]
    # the views apart, for checkpoint asks tensors among its arguments whose generators to keep
    embedded = [checkpoint(embed_part, p.views, p, use_reentrant=False) for p in parts]
    return {name: torch.cat([part[name] for part in embedded], 1) for name in embedded[0]}
