"""Pauses that grow, are drawn, and end."""

from collections.abc import Callable

import pytest

from lightning_rad.storage.patience import PassingError, Patience
from lightning_rad.storage.settings import StorageError


def failing(times: int) -> tuple[list[int], Callable[[], str]]:
    calls: list[int] = []

    def do() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise PassingError("away")
        return "here"

    return calls, do


def test_pauses_lie_below_a_bound_that_doubles_up_to_twenty_seconds() -> None:
    slept: list[list[float]] = []
    for _ in range(40):
        pauses: list[float] = []
        _, do = failing(9)
        assert Patience(9, sleep=pauses.append)("x", do) == "here"
        slept.append(pauses)
    bounds = [min(20.0, 0.25 * 2**n) for n in range(9)]
    for n, bound in enumerate(bounds):
        drawn = [pauses[n] for pauses in slept]
        assert max(drawn) <= bound
        assert max(drawn) > 0.7 * bound  # 40 draws: fails once in a million
        assert min(drawn) < 0.3 * bound


def test_the_last_try_names_what_and_why() -> None:
    calls, do = failing(99)
    with pytest.raises(StorageError, match="s3://b/x: away, after 4 tries"):
        Patience(3, sleep=lambda _: None)("s3://b/x", do)
    assert len(calls) == 4


def test_other_errors_are_not_tried_again() -> None:
    calls: list[int] = []

    def do() -> None:
        calls.append(1)
        raise StorageError("x: not there")

    with pytest.raises(StorageError, match="not there"):
        Patience(3, sleep=lambda _: None)("x", do)
    assert len(calls) == 1
