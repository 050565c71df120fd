"""How far NT-Xent of bfloat16 rows is from float64 on the same rows, ours and dense ones.

    python -m benchmarks.accuracy [--device cuda] [--pairs 512] [--dim 128]

Prints a markdown table. Every gradient comes back in bfloat16, as the rows are; "rounding" is what
that alone costs, the float64 gradient rounded once.

Shape letters: M = 2 N rows, D features.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from benchmarks.report import Table
from benchmarks.ways import apart_of
from lightning_rad.losses.nt_xent import nt_xent

TEMPERATURES = (0.02, 0.07, 0.1, 0.5)
COSINES = (0.0, 0.5, 0.9)
"""Of a row and its partner, about: as drawn, early in training, late."""
WAYS = ("ours", "dense fp32", "dense autocast")
COLUMNS = ["t", "cosine", "loss", *(f"loss: {way}" for way in WAYS)]
COLUMNS += [f"gradient: {way}" for way in (*WAYS, "rounding")]
NOTE = """Difference of the loss; |difference of the gradient| over the norm of the gradient."""
Loss = Callable[[Tensor], Tensor]


def rows(pairs: int, dim: int, cosine: float, device: str) -> Tensor:
    """[M, D] in bfloat16, of lengths from 1 to 3."""
    make = torch.Generator().manual_seed(0)
    first = normalize(torch.randn(pairs, dim, generator=make), dim=1)
    other = normalize(torch.randn(pairs, dim, generator=make), dim=1)
    second = cosine * first + math.sqrt(1 - cosine**2) * other
    lengths = 1 + 2 * torch.rand(2 * pairs, 1, generator=make)
    return (torch.cat([first, second]) * lengths).to(device, torch.bfloat16)


def dense(z_MD: Tensor, t: float) -> Tensor:
    u_MD = normalize(z_MD, dim=1)
    itself_MM = torch.eye(len(z_MD), dtype=torch.bool, device=z_MD.device)
    partner_M = torch.arange(len(z_MD), device=z_MD.device).roll(len(z_MD) // 2)
    return cross_entropy((u_MD @ u_MD.T / t).masked_fill(itself_MM, -torch.inf), partner_M)


def wide(z_MD: Tensor, t: float) -> Tensor:
    return dense(z_MD.float(), t)


def autocast(z_MD: Tensor, t: float) -> Tensor:
    with torch.autocast(z_MD.device.type, torch.bfloat16):
        return dense(z_MD.float(), t)


def ours(z_MD: Tensor, t: float) -> Tensor:
    ids_M = torch.arange(len(z_MD) // 2, device=z_MD.device).repeat(2)
    return nt_xent(z_MD, z_MD, ids_M, temperature=t, backend="fused")


def step(loss: Loss, z_MD: Tensor) -> tuple[float, Tensor]:
    z_MD = z_MD.clone().requires_grad_()
    value = loss(z_MD)
    (gradient_MD,) = torch.autograd.grad(value, z_MD)
    return float(value.detach()), gradient_MD


def measure(pairs: int = 512, dim: int = 128, device: str = "cpu") -> Table:
    """The table."""
    title = f"NT-Xent of bfloat16 rows, {pairs} x {dim}, against float64"
    table = Table(title, COLUMNS, note=NOTE)
    for t, cosine in product(TEMPERATURES, COSINES):
        z_MD = rows(pairs, dim, cosine, device)
        truth, wanted_MD = step(partial(dense, t=t), z_MD.double())
        forms = (ours, wide, autocast)
        found = {w: step(partial(f, t=t), z_MD) for w, f in zip(WAYS, forms, strict=True)}
        losses = {name: abs(value - truth) for name, (value, _) in found.items()}
        gradients = {name: apart_of(got, wanted_MD) for name, (_, got) in found.items()}
        gradients["rounding"] = apart_of(wanted_MD.bfloat16(), wanted_MD)
        cells = [f"{t}", f"{cosine}", f"{truth:.3g}"]
        cells += [f"{error:.1e}" for error in (*losses.values(), *gradients.values())]
        table.rows.append(dict(zip(COLUMNS, cells, strict=True)))
        told = {"t": t, "cosine": cosine, "loss": truth}
        table.details.append(told | {"loss errors": losses, "gradient errors": gradients})
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--dim", type=int, default=128)
    print(measure(**vars(parser.parse_args())).markdown())


if __name__ == "__main__":
    main()
