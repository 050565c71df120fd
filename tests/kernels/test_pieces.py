"""Keys in pieces, however they are cut and in any order, against the same keys at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_rad.kernels.clip import clip
from lightning_rad.kernels.nt_xent import nt_xent
from lightning_rad.kernels.pairs import fused_cpu, operator
from lightning_rad.kernels.temperature import Learned

Cut = list[tuple[int, Tensor]]
Outcome = list[Tensor]


def cut(x_MD: Tensor, sizes: list[int], seed: int) -> Cut:
    """Pieces of these sizes, shuffled."""
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    pieces = list(zip(starts, x_MD.split(sizes), strict=True))
    order = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(seed))
    return [pieces[k] for k in order]


def numbers_of_others(seed: int, offset: int, after: int) -> Callable[[Tensor], Tensor]:
    """A gather that puts numbers before and behind this rank's; what they are does not matter."""

    def gather(own: Tensor) -> Tensor:
        make = torch.Generator().manual_seed(seed)
        others = torch.rand(offset + after, own.shape[1], generator=make, dtype=torch.float64)
        return torch.cat([others[:offset].to(own), own, others[offset:].to(own)])

    return gather


def of_nt_xent(rows: Outcome, keys: Any, tau: Tensor, least: float, how: Any) -> Tensor:
    ids_M = how.pop("ids_M")
    return nt_xent(rows[0], keys[0], ids_M, temperature=Learned(tau, least), **how)


def of_clip(rows: Outcome, keys: Any, tau: Tensor, least: float, how: Any) -> Tensor:
    return clip(*rows, *keys, temperature=Learned(tau, least), image_share=0.7, **how)


def outcome(loss_of: Any, rows: Any, keys: Any, tau: float, least: float, how: Any) -> Outcome:
    """Losses and the gradients of rows and temperature, for weights of its own a row."""
    leaves = [x.clone().requires_grad_() for x in rows]
    wide = torch.promote_types(rows[0].dtype, torch.float32)
    temperature = torch.tensor(tau, dtype=wide, requires_grad=True)
    losses = loss_of(leaves, keys, temperature, least, {"reduction": "none", **how})
    weights = torch.rand(losses.shape, generator=torch.Generator().manual_seed(5))
    (-3.7 * (weights * losses).sum()).backward()
    found = [losses.detach(), *(x.grad for x in leaves), temperature.grad]
    assert all(x is not None for x in found)
    return [x for x in found if x is not None]


def problem(seed: int, count: int, dim: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Two kinds of rows, ids and groups; group 0 and rows without a positive among them."""
    make = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, count, dim, generator=make, dtype=torch.float64)
    ids = torch.randint(max(2, count // 2), (count,), generator=make)
    return [first, first + 0.7 * second], ids, ids % 3


@pytest.mark.parametrize("loss_of", [of_nt_xent, of_clip])
@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    around=st.tuples(*2 * [st.lists(st.integers(1, 6), max_size=4)]),
    beside=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    own=st.integers(1, 6),
    grouped=st.booleans(),
    temperature=st.sampled_from([0.01, 0.1, 0.5]),
    in_range=st.booleans(),
    side=st.sampled_from([3, 512]),
)
def test_pieces_give_what_the_keys_at_once_give(
    loss_of: Any,
    seed: int,
    around: tuple[list[int], list[int]],
    beside: tuple[int, int],
    own: int,
    grouped: bool,
    temperature: float,
    in_range: bool,
    side: int,
) -> None:
    """around: pieces before and after the one that holds this rank's, and beside: others' in it."""
    sizes = [*around[0], beside[0] + own + beside[1], *around[1]]
    offset = sum(around[0]) + beside[0]
    every, ids, groups = problem(seed, sum(sizes), 5)
    how = {
        "ids_M": ids,
        "groups_M": groups if grouped else None,
        "offset": offset,
        "gather": numbers_of_others(seed, offset, sum(sizes) - offset - own),
        "backend": "fused",
    }
    rows = [x[offset : offset + own] for x in every[: 1 if loss_of is of_nt_xent else 2]]
    least = 0.9 * temperature if in_range else 1e-3  # below 0.0029 float64 leaves its range
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_cpu, "BLOCK", side)
        want = outcome(loss_of, rows, every, temperature, least, how)
        pieces = [cut(x, sizes, seed) for x in every]
        got = outcome(loss_of, rows, pieces, temperature, least, how)
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("loss_of", [of_nt_xent, of_clip])
@pytest.mark.parametrize("temperature", [0.01, 0.02, 0.1, 0.5])
@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 1.5e-6), (torch.bfloat16, 4e-3), (torch.float16, 5e-4)]
)
def test_low_precision_loses_no_more_in_eight_pieces(
    loss_of: Any, temperature: float, dtype: torch.dtype, bound: float
) -> None:
    """The losses as the tables of numerics say; gradients in norms over that of an open row."""
    sizes = [32] * 8
    every, _, _ = problem(3, sum(sizes), 64)
    low = [x.to(dtype) for x in every]
    ids = torch.arange(sum(sizes) // 2).repeat(2)
    how = {"ids_M": ids, "offset": 64, "backend": "fused", "groups_M": ids % 7}
    others = torch.tensor([[1 / temperature, 0.3, 0.3]])
    how["gather"] = lambda own: others.to(own).repeat(256, own.shape[1] // 3)
    rows = [x[64:96] for x in low[: 1 if loss_of is of_nt_xent else 2]]
    want = outcome(
        loss_of, [x.double() for x in rows], [x.double() for x in low], temperature, 0.01, how
    )
    got = outcome(loss_of, rows, [cut(x, sizes, 1) for x in low], temperature, 0.01, how)
    assert got[0].dtype == torch.float32
    assert ((got[0] - want[0]).abs() <= 3e-6 * (1 + want[0]) + 4e-7 / temperature).all()
    for mine, exact in zip(got[1:], want[1:], strict=True):
        assert mine.dtype == dtype or mine.ndim == 0
        assert (mine - exact).norm() <= (bound + 4e-7 / temperature) * exact.norm()


@pytest.mark.skipif(torch.cuda.is_available(), reason="tiles are interpreted where there is no GPU")
@pytest.mark.parametrize("loss_of", [of_nt_xent, of_clip])
def test_tiles_of_tensor_cores_take_pieces_too(
    loss_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This rank's rows neither begin nor end the piece they are in."""
    sizes, own, temperature, least = [20, 40], slice(25, 45), 0.1, 0.09
    every, ids, groups = problem(3, sum(sizes), 24)
    gather = numbers_of_others(1, own.start, sum(sizes) - own.stop)
    how = {"ids_M": ids, "groups_M": groups, "offset": own.start, "gather": gather}
    rows = [x[own] for x in every[: 1 if loss_of is of_nt_xent else 2]]
    how["backend"] = "fused"
    want = outcome(loss_of, rows, every, temperature, least, how)
    monkeypatch.setitem(operator.FORMS, "cpu", "fused_triton")
    rows, pieces = [x.float() for x in rows], [cut(x.float(), sizes, 1) for x in every]
    got = outcome(loss_of, rows, pieces, temperature, least, how)
    for mine, exact in zip(got, want, strict=True):
        assert (mine - exact).norm() <= 1e-5 * exact.norm()


def test_pieces_are_let_go_one_after_the_other() -> None:
    """A rank never asks for the next piece before it is through with the one at hand."""
    every, ids, _ = problem(1, 40, 4)
    here = torch.zeros_like(every[0][:8])

    class OneRoom:
        """Every piece lies where the one before it lay."""

        def __iter__(self) -> Any:
            for first in range(0, 40, 8):
                here.copy_(every[0][first : first + 8])
                yield first, here

    how = {"ids_M": ids, "offset": 16, "gather": numbers_of_others(1, 16, 16), "backend": "fused"}
    rows = [every[0][16:24]]
    want = outcome(of_nt_xent, rows, every, 0.1, 0.09, how)
    for mine, theirs in zip(
        outcome(of_nt_xent, rows, [OneRoom()], 0.1, 0.09, how), want, strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("loss_of", [of_nt_xent, of_clip])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda pieces: pieces[:-1], r"pieces \[.*\] do not make up 12 keys"),
        (lambda pieces: [*pieces, pieces[0]], r"pieces \[.*\] do not make up 12 keys"),
        (lambda pieces: pieces[:0], r"pieces \[\] do not make up 12 keys"),
        (lambda pieces: [(f + (f == 8), x) for f, x in pieces], "do not make up 12 keys"),
        (lambda pieces: [(f, x[:, 1:]) for f, x in pieces], r"a piece \(4, 2\)"),
        (lambda pieces: [(f, x.float()) for f, x in pieces], "a piece .* of torch.float32"),
        (
            lambda pieces: [(0, torch.cat([x for _, x in pieces])[:6]), (6, pieces[0][1])],
            "piece 0 to 6 cuts this rank's rows in two",
        ),
    ],
)
def test_pieces_that_do_not_make_up_the_keys_are_refused(
    loss_of: Any, spoil: Callable[[Cut], Cut], message: str
) -> None:
    every, ids, _ = problem(1, 12, 3)
    rows = [x[4:8] for x in every[: 1 if loss_of is of_nt_xent else 2]]
    good = [[(k, x[k : k + 4]) for k in (0, 4, 8)] for x in every]
    how = {"ids_M": ids, "offset": 4, "gather": numbers_of_others(1, 4, 4)}
    outcome(loss_of, rows, good, 0.1, 0.1, how)
    with pytest.raises(ValueError, match=message):
        outcome(loss_of, rows, [spoil(x) for x in good], 0.1, 0.1, how)


@pytest.mark.parametrize("loss_of", [of_nt_xent, of_clip])
@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_only_the_fused_form_takes_pieces(loss_of: Any, backend: str) -> None:
    every, ids, _ = problem(1, 4, 3)
    rows = every[: 1 if loss_of is of_nt_xent else 2]
    how = {"ids_M": ids, "backend": backend}
    with pytest.raises(ValueError, match=f"backend: '{backend}' .*'auto' or 'fused'"):
        outcome(loss_of, rows, [[(0, x)] for x in every], 0.1, 0.1, how)
