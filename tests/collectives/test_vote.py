"""A vote is the largest over ranks; a meeting is of all; alone, both are at once."""

import time
from datetime import timedelta

from lightning_rad.collectives import Ballot, Vote, rank
from tests.gloo import run_on_ranks

LONG, SHORT = timedelta(seconds=20), timedelta(seconds=1)


def voted(numbers: list[int]) -> list[list[int]]:
    ballot = Ballot(LONG)
    first = ballot.vote([number + rank() for number in numbers])
    second = ballot.vote([-rank()])  # begun before the first is read
    return [second.read(), first.read(), first.read()]


def test_a_vote_is_the_largest_of_each_number_and_the_nth_votes_meet() -> None:
    assert run_on_ranks(voted, 3, [5, -1]) == [[[0], [7, 1], [7, 1]]] * 3


def met() -> tuple[bool, float]:
    ballot = Ballot(LONG)
    time.sleep(0.5 if rank() else 0.0)
    begun = time.monotonic()
    return ballot.meet(LONG), time.monotonic() - begun


def test_all_wait_for_the_last() -> None:
    (first, waited), (second, _) = run_on_ranks(met, 2)
    assert first
    assert second
    assert waited > 0.3


def not_met() -> bool:
    ballot = Ballot(LONG)
    return ballot.meet(SHORT) if rank() == 0 else True


def test_a_rank_that_does_not_come_is_not_waited_for_long() -> None:
    begun = time.monotonic()
    assert run_on_ranks(not_met, 2) == [False, True]
    assert time.monotonic() - begun < 15


def test_alone_there_is_no_one_to_ask() -> None:
    assert Vote([3, 4], None).read() == [3, 4]
    assert Ballot(LONG).meet(SHORT)
