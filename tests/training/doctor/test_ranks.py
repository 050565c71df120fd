"""Clocks told through a store, and one report of all ranks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist

from lightning_rad.training.doctor.bandwidth import between_two, judged
from lightning_rad.training.doctor.examination import summary
from lightning_rad.training.doctor.finding import Finding
from lightning_rad.training.doctor.launch import Place
from lightning_rad.training.doctor.ranks import clock_finding, offset, part, report


def at_once(ranks: int, call: Callable[[int, Any], Any]) -> list[Any]:
    """A thread a rank, on one store."""
    store = dist.HashStore()
    store.set_timeout(timedelta(seconds=20))
    answers: list[Any] = [None] * ranks

    def run(rank: int) -> None:
        answers[rank] = call(rank, store)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return answers


class Slow:
    """A store on the other side of a network: every call takes its time, there more than back."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def set(self, key: str, value: str) -> None:
        time.sleep(0.03)
        self._store.set(key, value)

    def get(self, key: str) -> bytes:
        got: bytes = self._store.get(key)
        time.sleep(0.01)
        return got


AHEAD = [0.0, -7.5, 0.0, 120.0]


def test_clocks_are_compared_whatever_the_network_takes() -> None:
    def ask(rank: int, store: Any) -> tuple[float, float]:
        reach = Slow(store) if rank else store
        return offset(reach, rank, len(AHEAD), lambda: time.time() + AHEAD[rank])

    found = at_once(len(AHEAD), ask)
    assert found[0] == (0.0, 0.0)
    for (ahead, bound), own in zip(found[1:], AHEAD[1:], strict=True):
        assert abs(ahead + own) <= bound
        assert 0.02 <= bound < 0.5
    assert [clock_finding(*pair).level for pair in found] == ["ok", "warning", "ok", "warning"]


def test_a_difference_that_the_network_may_explain_is_no_warning() -> None:
    assert clock_finding(2.5, 2.0).level == "ok"
    assert clock_finding(-3.5, 2.0).level == "warning"


def test_rank_0_hears_of_all_and_leaves_last() -> None:
    left: list[int] = []

    def say(rank: int, store: Any) -> Any:
        place = Place(rank, 3, 3, 1, "localhost", 1)
        level = (
            Finding("failed", "open files", "64", "raise it") if rank else Finding("ok", "x", "")
        )
        heard = report(store, place, [level])
        if rank:
            time.sleep(0.1)
            left.append(rank)
        part(store, place)
        if rank == 0:
            left.append(rank)
        return heard

    heard = at_once(3, say)
    assert heard[1] is heard[2] is None
    assert left[-1] == 0
    assert sorted(left[:2]) == [1, 2]
    lines = summary([r | {"host": f"n{i}"} for i, r in enumerate(heard[0])])
    assert lines == [
        "failed   open files: 64 (raise it) [n1:1, n2:2]",
        "failed   3 ranks on 3 hosts",
    ]


@pytest.mark.slow
def test_two_processes_of_this_machine_really_reduce() -> None:
    finding = between_two(0)
    assert finding.level in ("ok", "warning")
    assert finding.value.count("GB/s") == 3
    assert "64 MiB" in finding.value


@pytest.mark.slow
def test_a_network_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib7")
    finding = between_two(0)
    assert finding.level == "failed"
    assert "ib7" in finding.value
    assert "GLOO_SOCKET_IFNAME" in finding.remedy


def test_a_slow_link_is_told() -> None:
    assert judged("x", "gloo", {1: 1.0, 2: 1e9}).level == "ok"
    assert judged("x", "nccl", {1: 1e12, 2: 1e9}).level == "warning"
