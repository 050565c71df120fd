"""The ring: every rank's rows once, in turn, three ranks' at most, and what it exchanges."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from lightning_rad.collectives import Ring, exchange_rows, gather_detached, rank, world_size
from tests.gloo import run_on_ranks


def _rows(dtype: torch.dtype, shape: tuple[int, ...] = (3, 2)) -> Tensor:
    make = torch.Generator().manual_seed(rank())
    return (5 * torch.randn(shape, generator=make)).to(dtype)


def test_one_process_has_its_own_rows_and_exchanges_nothing() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    ((first, rows),) = Ring(x)
    assert first == 0
    assert torch.equal(rows, x)
    assert not rows.requires_grad
    assert rows.data_ptr() == x.data_ptr()


def test_an_exchange_is_one_of_two() -> None:
    x = torch.randn(3, 2)
    assert isinstance(exchange_rows(x, "ring"), Ring)
    assert torch.equal(torch.as_tensor(exchange_rows(x, "gather")), x)
    with pytest.raises(ValueError, match=r"exchange: 'rong' is not one of \['gather', 'ring'\]"):
        exchange_rows(x, "rong")  # type: ignore[arg-type]


def _two_rounds(dtype: torch.dtype, shape: tuple[int, ...]) -> Any:
    ring = Ring(_rows(dtype, shape))
    rounds = [[(first, rows.clone()) for first, rows in ring] for _ in range(2)]
    return rounds, gather_detached(_rows(dtype, shape)), ring.own_ND


@pytest.mark.parametrize("shape", [(3, 2), (1, 7), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_every_rank_meets_all_rows_once_its_own_first_again_and_again(
    ranks: int, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    out = run_on_ranks(_two_rounds, ranks, dtype, shape)
    for r, (rounds, gathered, own) in enumerate(out):
        for pieces in rounds:
            assert [first // shape[0] for first, _ in pieces] == [
                (r - k) % ranks for k in range(ranks)
            ]
            assert torch.equal(torch.cat([x for _, x in sorted(pieces, key=_first)]), gathered)
        assert torch.equal(own, gathered[r * shape[0] : (r + 1) * shape[0]])


def _first(piece: tuple[int, Tensor]) -> int:
    return piece[0]


def _a_transposed_view() -> tuple[Tensor, Tensor]:
    x = torch.arange(6.0).reshape(2, 3).T + 10 * rank()
    return torch.cat([rows.clone() for _, rows in sorted(Ring(x), key=_first)]), gather_detached(x)


def test_memory_layout_does_not_matter() -> None:
    for _, want in run_on_ranks(_a_transposed_view, 2):
        assert want.shape == (6, 2)
    for rows, want in run_on_ranks(_a_transposed_view, 2):
        assert torch.equal(rows, want)


def _storages() -> tuple[int, int]:
    """The most places that rows lay in while the ring went round, and those left when it had."""
    made: list[weakref.ref[torch.UntypedStorage]] = []
    empty_like = torch.empty_like

    def seen(x: Tensor) -> Tensor:
        room = empty_like(x)
        made.append(weakref.ref(room.untyped_storage()))
        return room

    torch.empty_like = seen  # type: ignore[assignment]
    try:
        ring = Ring(_rows(torch.float32))
        places = {rows.data_ptr() for _, rows in ring} | {ring.own_ND.data_ptr()}
    finally:
        torch.empty_like = empty_like
    gc.collect()
    assert len(made) == min(world_size() - 1, 2)
    return len(places), sum(ref() is not None for ref in made)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_no_more_than_three_ranks_rows_are_held_and_one_afterwards(ranks: int) -> None:
    for places, left in run_on_ranks(_storages, ranks):
        assert places == min(ranks, 3)
        assert left == 0


def _exchanges() -> list[int]:
    """Bytes of what this rank sent, an exchange each."""
    sent: list[int] = []
    send = dist.batch_isend_irecv

    def counted(ops: list[dist.P2POp]) -> list[dist.Work]:
        sent.append(sum(op.tensor.nbytes for op in ops if op.op is dist.isend))
        return send(ops)

    dist.batch_isend_irecv = counted
    try:
        for _ in Ring(_rows(torch.bfloat16, (5, 8))):
            pass
    finally:
        dist.batch_isend_irecv = send
    return sent


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_a_round_takes_one_exchange_less_than_there_are_ranks(ranks: int) -> None:
    assert run_on_ranks(_exchanges, ranks) == [[5 * 8 * 2] * (ranks - 1)] * ranks


def _order_of_events() -> list[str]:
    """What happens between two pieces: the next one is under way before the present is given."""
    events: list[str] = []
    send = dist.batch_isend_irecv

    def counted(ops: list[dist.P2POp]) -> list[dist.Work]:
        events.append("sent")
        return send(ops)

    dist.batch_isend_irecv = counted
    try:
        for _, rows in Ring(_rows(torch.float32)):
            assert rows.isfinite().all()
            events.append("worked on")
    finally:
        dist.batch_isend_irecv = send
    return events


def test_what_comes_next_is_under_way_while_a_piece_is_worked_on() -> None:
    for events in run_on_ranks(_order_of_events, 3):
        assert events == ["sent", "worked on", "sent", "worked on", "worked on"]
