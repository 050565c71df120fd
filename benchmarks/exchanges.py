"""What a step exchanges under each strategy: collectives and bytes, from the parameters alone.

    python -m benchmarks.exchanges docs/numerics.md

Arithmetic, no measurement, but tests/training/test_exchanged.py asserts it against every call that
small networks make. It rewrites the table of that file, between its marks, for objectives of
configs/objective on 8 ranks. W ranks; P trained parameters; S elements of a part that a rank holds.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.scaling import with_table
from benchmarks.without_memory import shipped
from lightning_rad.nn.blocks import Part
from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.finding_classifier import FindingClassifier
from lightning_rad.nn.projector import Projector
from lightning_rad.nn.text import TextEncoder
from lightning_rad.objectives.base import Objective
from lightning_rad.training.sharding_plan import parts

MARK = "strategies"
RANKS = 8
BUCKET = 25 * 2**20
"""Bytes: `DDP.bucket_cap_mb`."""

Calls = Counter[tuple[str, int]]
"""How often there is each (collective, bytes): of an all-reduce, of its tensor; of any other, what
a rank receives from each other rank."""


@dataclass(frozen=True)
class Passes:
    """How often a step calls the student and the twin, with two views.

    twin_first: whether a call of the twin comes before one of the student. FSDP2 gathers ahead in
    backward what was called before, which is then the twin's head: once a step it does so in vain.
    """

    student: int = 1
    twin: int = 0
    twin_first: bool = False


VIT = {"name": "vit_base_patch16_224", "image_size": 224, "channels_last": False}
CASES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("SimCLR, ResNet-50", "simclr", {}),
    ("MoCo v2, ResNet-50", "moco_v2", {}),
    ("BYOL, ResNet-50", "byol", {}),
    ("SimCLR, ViT-B/16", "simclr", VIT),
    ("MoCo v3, ViT-B/16", "moco_v3_vit", VIT),
    ("CLIP, ViT-B/16", "image_report_clip", {}),
    ("SigLIP, ViT-B/16", "image_report_siglip", {}),
    ("REFERS, ViT-B/16", "refers", {}),
)
"""Name in the table, file of configs/objective, what its encoder is given instead."""

PASSES = {
    "SimCLR": Passes(),
    "MICLe": Passes(),
    "MoCo": Passes(1, 1),
    "MoCoV3": Passes(2, 2),
    "BYOL": Passes(2, 2),
    "C2L": Passes(2, 2, twin_first=True),
    "BarlowTwins": Passes(2),
    "VICReg": Passes(2),
    "ImageReport": Passes(),
    "KnowledgeContrast": Passes(),
    "GazePredictor": Passes(),
    "REFERS": Passes(),
}
"""Where there is one pass it is of all views; texts and memories pass as often as images."""


@dataclass(frozen=True)
class Layout:
    """How `Sharded` is set up. within: ranks that hold one part each; nodes: copies of these.

    accumulated: micro-batches of a step. pieces: in which `embed_at_once` embeds one of these.
    """

    within: int
    nodes: int = 1
    reshard: bool = True
    bfloat16: bool = False
    accumulated: int = 1
    pieces: int = 1


def held(part: Iterable[nn.Parameter], ranks: int) -> int:
    """Elements of a part that a rank holds: rows of each tensor, rounded up."""
    return sum(-(-len(p) // ranks) * (p.numel() // len(p)) for p in part)


def sharded(objective: Objective, layout: Layout, size: int = 4) -> Calls:
    """Gathers of parameters, sums of gradients and, with nodes, their sums between these.

    A part that the student is called with c times is gathered c times in forward and c in backward;
    in backward only, and once where parameters are kept, what an encoder holds beside its blocks,
    for images and words need no gradient and it stays whole until backward ends. What an objective
    holds beside its parts is gathered once, in its own precision. A gradient is summed once, and
    that of a parameter without a dimension by itself. Where heat is by gradient (`averages` is
    False) an encoder is called once more, for its head, behind the classifier, which backward then
    gathers ahead in vain. size: bytes of an element of a parameter.
    """
    calls: Calls = Counter()
    passes, many = PASSES[type(objective).__name__], layout.accumulated
    student, twin = passes.student * layout.pieces, passes.twin * layout.pieces
    heads = 0 if getattr(objective, "averages", True) else layout.pieces
    vain = twin > 0 and (layout.pieces > 1 or passes.twin_first)
    for params, part, of_twin in _owned(objective):
        norms = any(isinstance(m, _BatchNorm) for m in _beside_blocks(part))
        low = layout.bfloat16 and not norms and part is not objective
        gathered = ("all-gather", held(params, layout.within) * (2 if low else size))
        if of_twin:
            calls[gathered] += (twin + (isinstance(part, Projector) and vain)) * many
            continue
        again = 1 if isinstance(part, Encoder | TextEncoder) else student
        times = student + again if layout.reshard else again
        if heads:
            behind = isinstance(part, FindingClassifier)
            times += heads * (behind or (layout.reshard and isinstance(part, Encoder)))
        calls[gathered] += (1 if part is objective else times) * many
        if trained := [p for p in params if p.requires_grad]:
            summed = held(trained, layout.within) * size
            calls["reduce-scatter", summed] += many
            calls["all-reduce", summed] += layout.nodes > 1
    whole = sum(p.requires_grad and not p.ndim for p in objective.parameters())
    calls["all-reduce", size] += whole * many
    return +calls


def reduced(sizes: Sequence[int], cap: int = BUCKET) -> Calls:
    """DDP's all-reduces. sizes: bytes of gradients in the order in which backward gives them."""
    buckets = [0]
    for size in sizes:
        if buckets[-1] >= cap:
            buckets.append(0)
        buckets[-1] += size
    return Counter(("all-reduce", bucket) for bucket in buckets)


def backwards(objective: nn.Module, size: int = 4) -> list[int]:
    """Bytes of the gradients, last parameter first, which is about how backward gives them."""
    return [size * p.numel() for p in objective.parameters() if p.requires_grad][::-1]


def received(calls: Calls, ranks: int) -> float:
    """Bytes that a rank receives; an all-reduce as a ring does it."""
    share = {"all-reduce": 2 * (ranks - 1) / ranks}
    return sum(share.get(name, ranks - 1) * size * n for (name, size), n in calls.items())


def _owned(objective: Objective) -> Iterator[tuple[list[nn.Parameter], nn.Module, bool]]:
    """What each part holds beside the parts in it; last, if it holds any, the objective."""
    seen: set[nn.Parameter] = set()
    for part, of_twin in (*parts(objective), (objective, False)):
        own = [p for p in part.parameters() if p not in seen and p.ndim]
        seen.update(own)
        if own:
            yield own, part, of_twin


def _beside_blocks(part: nn.Module) -> Iterator[nn.Module]:
    blocks = part.blocks() if isinstance(part, Encoder | Part) else []
    inside = {module for block in blocks for module in block.modules()}
    return (module for module in part.modules() if module not in inside)


def table(ranks: int = RANKS) -> Iterator[str]:
    """MB that a rank receives a step, beside the rows of the loss; one row a case."""
    yield (
        "| | trained, millions | DDP, all-reduces | MB | compressed MB | Sharded, all-gathers "
        "| reduce-scatters | MB | bfloat16 MB | bfloat16, kept: all-gathers | MB |"
    )
    yield "|---|" + "---|" * 10
    for name, config, encoder in CASES:
        objective = shipped(config, **encoder)
        sizes = backwards(objective)
        layouts = (
            Layout(ranks),
            Layout(ranks, bfloat16=True),
            Layout(ranks, bfloat16=True, reshard=False),
        )
        plain, low, kept = (sharded(objective, layout) for layout in layouts)
        whole = received(reduced(sizes), ranks)
        cells = [name, f"{sum(sizes) / 4e6:.1f}", f"{reduced(sizes).total()}", f"{whole / 1e6:.0f}"]
        cells += [f"{whole / 2e6:.0f}", f"{often(plain, 'all-gather')}"]
        cells += [f"{often(plain, 'reduce-scatter')}", f"{received(plain, ranks) / 1e6:.0f}"]
        cells += [f"{received(low, ranks) / 1e6:.0f}", f"{often(kept, 'all-gather')}"]
        cells += [f"{received(kept, ranks) / 1e6:.0f}"]
        yield f"| {' | '.join(cells)} |"


def often(calls: Calls, collective: str) -> int:
    return sum(number for (name, _), number in calls.items() if name == collective)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.exchanges FILE.md")
    file = Path(sys.argv[1])
    file.write_text(with_table(file.read_text(), MARK, table()))


if __name__ == "__main__":
    main()
