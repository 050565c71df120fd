"""The least seconds a loss can take: products at the rate of a matmul, exponentials, bytes.

Counts are of the best algorithm known for each loss, 2 FLOP a multiply-add. NT-Xent: half of a
symmetric matrix forward (n^2 D); backward once more and one product (4 n^2 D), an exponential an
element. CLIP: 2 N^2 D forward, 6 N^2 D backward. Sigmoid: three products in one pass, 6 N^2 D.
Queue: two products in one pass, 4 N K D, and every key is read once.
"""

from __future__ import annotations

Ceilings = dict[str, float]


def two_views(pairs: int, dim: int, ceilings: Ceilings) -> tuple[float, float]:
    """Forward and backward."""
    elements = 4.0 * pairs**2
    forward = _longest(ceilings, matmul=elements * dim, exp=elements / 2)
    return forward, _longest(ceilings, matmul=4 * elements * dim, exp=elements)


def two_sides(pairs: int, dim: int, ceilings: Ceilings) -> tuple[float, float]:
    elements = float(pairs) ** 2
    forward = _longest(ceilings, matmul=2 * elements * dim, exp=elements)
    return forward, _longest(ceilings, matmul=6 * elements * dim, exp=elements)


def sigmoid(pairs: int, dim: int, ceilings: Ceilings) -> tuple[float, float]:
    """Everything happens forward."""
    elements = float(pairs) ** 2
    return _longest(ceilings, matmul=6 * elements * dim, exp=elements), 0.0


def queue(rows: int, length: int, dim: int, ceilings: Ceilings) -> tuple[float, float]:
    """Everything happens forward; keys of 2 bytes a number."""
    elements = float(rows) * length
    done = {"matmul": 4 * elements * dim, "exp": elements, "copy": 2.0 * length * dim}
    return _longest(ceilings, **done), 0.0


def _longest(ceilings: Ceilings, **done: float) -> float:
    return max(amount / ceilings[kind] for kind, amount in done.items())
