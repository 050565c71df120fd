"""Strong scaling on paper: what a step costs on 8, 64 and 512 cards if the assumptions hold.

    python -m benchmarks.scaling docs/scaling.md

Arithmetic, no measurement. It rewrites the tables of that file, between their marks, from the
numbers below: change them to those of your machine. Bytes of the exchanges are those of
docs/numerics.md, "Ranks". B units of a global batch, V views of each, W ranks, D features.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

RANKS = (8, 64, 512)
BATCHES = (4096, 32768)
NODE = 8
"""Cards of a node."""


@dataclass(frozen=True)
class Machine:
    """Assumptions: A100 cards, NVLink in a node, eight 200 Gb/s links out of it."""

    inside: float = 230e9
    """Bytes/s of all-reduce in a node ("bus bandwidth", as nccl-tests call it)."""
    outside: float = 160e9
    """The same over nodes: 80 % of the eight links' 200 GB/s."""
    hop: float = 10e-6
    """Seconds of a small collective, times log2 of the ranks."""
    flops: float = 312e12
    loss_share: float = 0.3
    """Of the flops, that the loss's products reach."""
    launch: float = 10e-3
    """Seconds below which no step goes, for the host has kernels to launch."""
    backward: float = 2 / 3
    """Share of the network's time, beside which the reduction of gradients runs."""
    overlap: float = 0.8
    """Share of backward that the reduction can use; the last bucket never can."""
    bucket: float = 25e6
    """Bytes of the last bucket (DDP's default of 25 MiB, about)."""
    core: float = 326.0
    """Units a second that a core decodes and crops."""


@dataclass(frozen=True)
class Network:
    """images: views of one card a second. parameters, norms: with SimCLR's projector."""

    name: str
    images: float
    parameters: int
    norms: int


NETWORKS = (
    Network("ResNet-50", 2470.0, 27_962_432, 55),
    Network("ViT-B/16", 0.35 * 312e12 / 104.8e9, 87_244_672, 2),
)
"""ResNet-50: the rate that DeepLearningExamples publishes. ViT-B/16: 35 % of the card's peak at
104.8 GFLOP an image, assumed. Both with one input channel."""


@dataclass(frozen=True)
class Step:
    """Seconds of the parts of one optimiser step; the sum is what one waits for."""

    network: float
    loss: float
    gathers: float
    norms: float
    exposed: float
    reduction: float

    @property
    def whole(self) -> float:
        return self.network + self.loss + self.gathers + self.norms + self.exposed


def bandwidth(machine: Machine, ranks: int) -> float:
    return machine.inside if ranks <= NODE else min(machine.inside, machine.outside)


def reduction(machine: Machine, ranks: int, size: float) -> float:
    """Seconds of a ring all-reduce: 2 (W - 1) / W of the bytes pass each link."""
    if ranks == 1:
        return 0.0
    small = machine.hop * math.log2(ranks)
    return small + 2 * (ranks - 1) / ranks * size / bandwidth(machine, ranks)


def gathering(machine: Machine, ranks: int, own: float, calls: int) -> float:
    """Seconds in which each rank gets every other rank's bytes."""
    if ranks == 1:
        return 0.0
    return calls * machine.hop * math.log2(ranks) + (ranks - 1) * own / bandwidth(machine, ranks)


def simclr(machine: Machine, network: Network, ranks: int, units: int) -> Step:
    """Two views, D = 128 in bfloat16, gradients in float32, batch norms over all ranks."""
    views, features, element = 2, 128, 2
    rows = views * units // ranks
    spent = max(rows / network.images, machine.launch)
    # forward 2 n M D, backward 4 n M D, M the rows of all ranks
    products = 6 * rows * (views * units) * features
    own = rows * (features * element + 8 + 12)
    whole = reduction(machine, ranks, 4 * network.parameters)
    last = reduction(machine, ranks, min(machine.bucket, 4 * network.parameters))
    hidden = machine.overlap * machine.backward * spent
    small = 0.0 if ranks == 1 else machine.hop * math.log2(ranks)
    return Step(
        network=spent,
        loss=products / (machine.loss_share * machine.flops),
        gathers=gathering(machine, ranks, own, 3),
        norms=2 * network.norms * small,
        exposed=max(last, whole - hidden),
        reduction=whole,
    )


def efficiency(machine: Machine, network: Network, ranks: int, units: int) -> float:
    """Units a second over those of as many single cards, each at its best rate and without loss."""
    ideal = 2 * units / ranks / network.images
    return ideal / simclr(machine, network, ranks, units).whole


def steps_table(machine: Machine) -> Iterator[str]:
    """One row a network, batch and number of cards."""
    yield (
        "| network | units | cards | images a card | network ms | loss ms | gathers ms | norms ms "
        "| reduction ms (exposed) | step ms | units/s | of ideal | cores a node |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    for network in NETWORKS:
        for units in BATCHES:
            for ranks in RANKS:
                step = simclr(machine, network, ranks, units)
                pace = units / step.whole
                cores = pace / math.ceil(ranks / NODE) / machine.core
                cells = [network.name, f"{units:,}", str(ranks), str(2 * units // ranks)]
                parts = (step.network, step.loss, step.gathers, step.norms)
                cells += [f"{1e3 * part:.1f}" for part in parts]
                cells += [f"{1e3 * step.reduction:.1f} ({1e3 * step.exposed:.1f})"]
                cells += [f"{1e3 * step.whole:.1f}", f"{pace:,.0f}"]
                cells += [f"{efficiency(machine, network, ranks, units):.0%}", f"{cores:.0f}"]
                yield f"| {' | '.join(cells)} |"


GATHERED = {  # bytes that a unit of the batch sends in forward and backward, in bfloat16
    "SimCLR, D 128": 2 * (128 * 2 + 8 + 12),
    "CLIP, D 512": 2 * 512 * 2 + 16 + 24,
    "SigLIP, D 768": 2 * 768 * 2 + 16,
    "REFERS, ViT-B/16": 2 * 3 * 768 * 2 + 16 + 24,
    "MoCo v1 and v2, D 128, without ShuffleBN": 128 * 2,
    "C2L, D 128, without ShuffleBN": 3 * 128 * 2,
    "MoCo v3, D 256": 2 * 256 * 2,
    "Barlow Twins, VICReg, D 8,192": 2 * 2 * 8192 * 2,
    "BYOL": 0,
}
"""Rows of docs/numerics.md, "Ranks", of two views; a unit of CLIP and SigLIP is an image and
its text, of REFERS a study of three images and its text."""


def gathers_table(machine: Machine) -> Iterator[str]:
    """What a rank receives a step, and its milliseconds."""
    yield (
        "| objective | bytes a unit | "
        + " | ".join(f"{units:,} units, {ranks} cards" for units in BATCHES for ranks in RANKS)
        + " |"
    )
    yield "|---|---|" + "---|" * len(BATCHES) * len(RANKS)
    for name, size in GATHERED.items():
        cells = [name, f"{size:,}"]
        for units in BATCHES:
            for ranks in RANKS:
                own = size * units / ranks
                seconds = gathering(machine, ranks, own, 2) if size else 0.0
                cells.append(f"{(ranks - 1) * own / 1e6:.1f} MB, {1e3 * seconds:.2f} ms")
        yield f"| {' | '.join(cells)} |"


def filled(text: str, machine: Machine) -> str:
    """The text with its tables made anew."""
    text = with_table(text, "steps", steps_table(machine))
    return with_table(text, "gathers", gathers_table(machine))


def with_table(text: str, name: str, rows: Iterable[str]) -> str:
    """The text with other rows between the marks of a table."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if begin not in text or end not in text:
        raise ValueError(f"the text has no {begin} ... {end}")
    table = "\n".join([begin, *rows, end])
    return re.sub(f"{begin}.*?{end}", lambda _: table, text, flags=re.DOTALL)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.scaling FILE.md")
    file = Path(sys.argv[1])
    file.write_text(filled(file.read_text(), Machine()))


if __name__ == "__main__":
    main()
