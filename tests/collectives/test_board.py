"""Ranks read one another's latest lines, and do not wait for those that wrote none."""

import torch.distributed as dist

from lightning_rad.collectives import Board, rank
from tests.gloo import run_on_ranks


def posted() -> list[list[str | None] | None]:
    board, other = Board("a"), Board("b")
    board.post("old")
    if rank() < 2:
        board.post(f"line of {rank()}")
    if rank() == 0:
        other.post("alone")
    dist.barrier()
    return [board.read(), other.read()]


def test_each_sees_the_latest_line_of_all() -> None:
    lines = [["line of 0", "line of 1", "old"], ["alone", None, None]]
    assert run_on_ranks(posted, 3) == [lines] * 3


def test_alone_there_is_no_board() -> None:
    board = Board("a")
    board.post("x")
    assert board.read() is None
