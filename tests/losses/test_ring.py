"""Losses whose keys go round a ring of ranks: what gathered keys give, and one process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from lightning_rad.collectives import Ring, gather_detached, rank, world_size
from lightning_rad.kernels.temperature import Learned
from lightning_rad.losses.clip import clip
from lightning_rad.losses.nt_xent import nt_xent
from tests.gloo import run_on_ranks

ROWS = 24
UPSTREAM = 0.7


class Case(NamedTuple):
    """loss: name of it; temperature, and the bound that decides how sums stay in range."""

    loss: str
    temperature: float
    least: float
    grouped: bool


CASES = [
    Case(loss, temperature, least, grouped)
    for loss in ("nt_xent", "clip")
    for temperature, least, grouped in (
        (0.1, 0.05, False),
        (0.1, 0.05, True),
        (0.02, 1e-3, True),  # at such a bound even float64 leaves its range
    )
]


class Stuck(Ring):
    """A ring that stops short of its last rank."""

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        pieces = list(super().__iter__())
        yield from pieces[:-1]


class Misnamed(Ring):
    """A ring that takes the rank after this one for that before it."""

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        ranks, count = world_size(), len(self.own_ND)
        for step, (_, rows) in enumerate(super().__iter__()):
            yield (rank() + step) % ranks * count, rows


class Stale(Ring):
    """A ring whose transfers are not waited for: what is worked on is what came before."""

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        before = self.own_ND
        for first, rows in super().__iter__():
            yield first, before
            before = rows.clone()


RINGS = {"ring": Ring, "stuck": Stuck, "misnamed": Misnamed, "stale": Stale}


def _rows(loss: str) -> list[Tensor]:
    """[ROWS, 5] one or two kinds; what ranks hold is of other lengths and spread."""
    make = torch.Generator().manual_seed(1)
    rows = torch.randn(2, ROWS, 5, generator=make, dtype=torch.float64)
    rows[1] = rows[0] + rows[1]
    rows *= torch.linspace(0.5, 3, ROWS, dtype=torch.float64)[:, None]
    return list(rows[:1] if loss == "nt_xent" else rows)


def _labels(loss: str) -> tuple[Tensor, Tensor]:
    """Two to four positives a row, on other ranks and on its own; groups, some unknown."""
    make = torch.Generator().manual_seed(2)
    ids = torch.arange(ROWS // 2).repeat(2)[torch.randperm(ROWS, generator=make)]
    return ids.where(ids > 3, ids // 2), ids % 4


def _outcome(case: Case, exchange: str, backend: Any) -> tuple[Tensor, list[Tensor], Tensor]:
    """This rank's loss, the gradients of its rows, and that of the temperature."""
    share = slice(rank() * ROWS // world_size(), (rank() + 1) * ROWS // world_size())
    leaves = [x[share].clone().requires_grad_() for x in _rows(case.loss)]
    tau = torch.tensor(case.temperature, dtype=torch.float64, requires_grad=True)
    keys: list[Any] = [RINGS.get(exchange, gather_detached)(x) for x in leaves]
    ids, groups = (gather_detached(x[share]) for x in _labels(case.loss))
    how: dict[str, Any] = {
        "temperature": Learned(tau, case.least),
        "groups_M": groups if case.grouped else None,
        "offset": share.start,
        "gather": gather_detached,
        "backend": backend,
    }
    if case.loss == "nt_xent":
        loss = nt_xent(leaves[0], keys[0], ids, **how)
    else:
        loss = clip(*leaves, *keys, ids_M=ids, image_share=0.75, **how)
    (UPSTREAM * loss).backward()
    grads = [x.grad for x in leaves if x.grad is not None]
    assert tau.grad is not None
    return loss.detach(), grads, tau.grad


def _together(outcomes: list[tuple[Tensor, list[Tensor], Tensor]]) -> list[Tensor]:
    """Loss, rows and temperature as the mean over ranks makes them."""
    losses, grads, of_tau = zip(*outcomes, strict=True)
    rows = [torch.cat(parts) / len(outcomes) for parts in zip(*grads, strict=True)]
    return [torch.stack(losses).mean(), *rows, torch.stack(of_tau).mean()]


def _off_by(got: list[Tensor], want: list[Tensor]) -> float:
    """The largest error relative to the norm of what is wanted."""
    pairs = zip(got, want, strict=True)
    return max(((mine - exact).norm() / exact.norm()).item() for mine, exact in pairs)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_a_ring_gives_what_gathered_keys_and_one_process_give(ranks: int, case: Case) -> None:
    ring = run_on_ranks(_outcome, ranks, case, "ring", "fused")
    gathered = run_on_ranks(_outcome, ranks, case, "gather", "fused")
    for (loss, grads, of_tau), (want, want_grads, want_of_tau) in zip(ring, gathered, strict=True):
        assert _off_by([loss, *grads, of_tau], [want, *want_grads, want_of_tau]) < 1e-10
    alone = _outcome(case, "gather", "reference")
    assert _off_by(_together(ring), _together([alone])) < 1e-10
    assert _off_by(_together([_outcome(case, "ring", "auto")]), _together([alone])) < 1e-10


@pytest.mark.parametrize("case", [CASES[1], CASES[-1]])
def test_groups_and_temperatures_of_the_cases_matter(case: Case) -> None:
    want = _together([_outcome(case, "gather", "reference")])
    for change in ({"grouped": False}, {"temperature": 0.11}):
        other = _together([_outcome(case._replace(**change), "gather", "reference")])
        assert _off_by(other, want) > 0.01


@pytest.mark.parametrize("loss", ["nt_xent", "clip"])
@pytest.mark.parametrize("wrong", ["misnamed", "stale"])
def test_rows_of_another_rank_than_is_said_are_seen(wrong: str, loss: str) -> None:
    case = Case(loss, 0.1, 0.05, False)
    want = _together([_outcome(case, "gather", "reference")])
    got = _together(run_on_ranks(_outcome, 3, case, wrong, "fused"))
    for mine, exact in zip(got[:-1], want[:-1], strict=True):
        assert _off_by([mine], [exact]) > 0.01


@pytest.mark.parametrize("loss", ["nt_xent", "clip"])
def test_a_ring_that_stops_short_is_refused(loss: str) -> None:
    with pytest.raises(ValueError, match=r"pieces \[.*\] do not make up 24 keys"):
        run_on_ranks(_outcome, 3, Case(loss, 0.1, 0.05, False), "stuck", "fused")


def test_a_ring_has_no_dense_form() -> None:
    for case in (CASES[0], CASES[-1]):
        with pytest.raises(ValueError, match="backend: 'reference'"):
            _outcome(case, "ring", "reference")
