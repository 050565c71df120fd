"""Objects reach the ranks they are for."""

from typing import Any

import torch.distributed as dist

from lightning_rad.collectives import (
    OwnGroup,
    broadcast_object,
    gather_objects,
    rank,
    scatter_objects,
)
from tests.gloo import run_on_ranks


def test_one_process_keeps_its_own() -> None:
    assert broadcast_object({"a": 1}) == {"a": 1}
    assert gather_objects("x") == ["x"]
    assert scatter_objects([3]) == 3
    assert OwnGroup().get() is None


def _exchanged() -> list[Any]:
    own = OwnGroup()
    groups = (None, own.get())
    assert own.get() is groups[1] is not dist.group.WORLD
    found: list[Any] = []
    for group in groups:
        found.append(broadcast_object(f"of {rank()}", group))
        gathered = gather_objects((rank(), "x" * rank()), group)
        found.append(gathered)
        answers = None if gathered is None else [10 * r for r, _ in gathered]
        found.append(scatter_objects(answers, group))
    return found


def test_rank_0_gives_to_all_takes_from_all_and_answers_each() -> None:
    first, *others = run_on_ranks(_exchanged, 3)
    everyone = [(0, ""), (1, "x"), (2, "xx")]
    assert first == ["of 0", everyone, 0] * 2
    assert others == [["of 0", None, 10 * r] * 2 for r in (1, 2)]


_KEPT = OwnGroup()


def _over_the_kept_group() -> str:
    return broadcast_object(f"of {rank()}", _KEPT.get())


def test_a_group_is_made_anew_with_a_new_default_group() -> None:
    """The pool's processes live on, and join a new default group at every call."""
    for _ in range(2):
        assert run_on_ranks(_over_the_kept_group, 2) == ["of 0", "of 0"]
