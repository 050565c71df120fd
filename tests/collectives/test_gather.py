"""Gathers: order, gradient, dtypes, and ranks that disagree."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from lightning_rad.collectives import (
    gather_detached,
    gather_rows,
    gather_uneven,
    rank,
    require_equal_shapes,
    world_size,
)
from tests.gloo import run_on_ranks


def test_one_process_gathers_nothing() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    assert (rank(), world_size()) == (0, 1)
    assert all(gather(x) is x for gather in (gather_rows, gather_uneven))
    assert torch.equal(gather_detached(x), x)
    assert not gather_detached(x).requires_grad


def _rows(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    torch.manual_seed(rank())
    return torch.randn(shape).to(dtype)


def _gather_with_gradient(
    shape: tuple[int, ...], dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    x = _rows(shape, dtype).requires_grad_()
    gathered = gather_rows(x)
    weight = _rows(tuple(gathered.shape), dtype)  # every rank weighs every row differently
    (gathered * weight).sum().backward()
    return x.detach(), gathered.detach(), weight, x.grad


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("shape", [(5, 3), (1, 7), (2, 3, 4), (0, 3)])
def test_rows_arrive_in_rank_order_and_their_gradients_are_summed(
    ranks: int, shape: tuple[int, ...]
) -> None:
    out = run_on_ranks(_gather_with_gradient, ranks, shape, torch.float64)
    every = torch.cat([x for x, *_ in out])
    summed = sum(weight for *_, weight, _ in out).split(shape[0]) if shape[0] else [every] * ranks
    for r, (_, gathered, _, grad) in enumerate(out):
        assert torch.equal(gathered, every)
        torch.testing.assert_close(grad, summed[r], rtol=1e-15, atol=1e-15)


def test_gradient_keeps_a_low_precision_dtype() -> None:
    for x, gathered, _, grad in run_on_ranks(_gather_with_gradient, 2, (3, 2), torch.bfloat16):
        assert x.dtype == gathered.dtype == torch.bfloat16
        assert grad is not None
        assert grad.dtype == torch.bfloat16


def _gather_a_transposed_view() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.arange(6.0).reshape(2, 3) + 10 * rank()
    x.requires_grad_()
    gather_rows(x.T).T.sum().backward()
    assert x.grad is not None
    return gather_rows(x.T).detach(), x.grad


def test_memory_layout_does_not_matter() -> None:
    block = torch.arange(6.0).reshape(2, 3).T
    for gathered, grad in run_on_ranks(_gather_a_transposed_view, 2):
        assert torch.equal(gathered, torch.cat([block, block + 10]))
        assert torch.equal(grad, torch.full((2, 3), 2.0))


def _gather_integers() -> torch.Tensor:
    return gather_detached(torch.tensor([2**62 + rank(), -rank()]))


def test_ids_survive_exactly() -> None:
    for ids in run_on_ranks(_gather_integers, 2):
        assert ids.tolist() == [2**62, 0, 2**62 + 1, -1]


def _gather_uneven(counts: list[int], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    x = (_rows((counts[rank()], 2), torch.float64) * 5).to(dtype)
    return x, gather_uneven(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
@pytest.mark.parametrize("counts", [[3, 1], [0, 4], [2, 0, 5], [0, 0]])
def test_unequal_counts_lose_and_invent_no_row(counts: list[int], dtype: torch.dtype) -> None:
    out = run_on_ranks(_gather_uneven, len(counts), counts, dtype)
    every = torch.cat([x for x, _ in out])
    assert all(gathered.dtype == dtype and torch.equal(gathered, every) for _, gathered in out)


def _message_on_unequal_shapes(explicit: bool) -> str:
    x = torch.zeros(2 + rank(), 3)
    dist.set_debug_level(dist.DebugLevel.INFO)
    try:
        require_equal_shapes(x) if explicit else gather_rows(x)
    except ValueError as error:
        return str(error)
    finally:
        dist.set_debug_level(dist.DebugLevel.OFF)
    return ""


@pytest.mark.parametrize("explicit", [True, False])
def test_every_rank_names_the_shapes_that_differ(explicit: bool) -> None:
    for message in run_on_ranks(_message_on_unequal_shapes, 2, explicit):
        assert "(2, 3), (3, 3)" in message
