"""A rank that stands still is named with host and step, and no process waits for it for long."""

import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from inspect import signature
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Callback
from torch.distributed.constants import default_pg_timeout

from lightning_rad.training.death import LastWords
from lightning_rad.training.pulse import Pulse, behind
from lightning_rad.training.strategies import DDP, Sharded
from lightning_rad.training.watchdog import Watchdog, _Watcher
from tests.processes import Pace, reach
from tests.runs import Run, started, train

LIMIT = 4.0
HOST = socket.gethostname()
OURS = (DDP, Sharded)


def test_the_watchdog_ends_a_hang_before_the_collective_that_waits_for_it() -> None:
    limits = {name: p.default for name, p in signature(Watchdog).parameters.items()}
    waits = [
        *(60 * signature(strategy).parameters["timeout_minutes"].default for strategy in OURS),
        default_pg_timeout.total_seconds(),  # of Lightning's own, such as `ddp`
    ]
    noticed = 60  # seconds, to find out who is behind and to say it
    assert 60 * max(limits.values()) + noticed < min(waits)


class Stuck(Callback):
    """Stands still at one place of one rank."""

    def __init__(self, rank: int, how: str) -> None:
        self._rank, self._how = rank, how

    def _here(self, trainer: Any, how: str) -> None:
        if trainer.global_rank == self._rank and trainer.global_step == 4 and self._how == how:
            if how == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(1000)

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        self._here(trainer, "stop")
        self._here(trainer, "sleep")

    def on_before_backward(self, trainer: Any, *args: Any) -> None:
        self._here(trainer, "after-forward")


class SlowStart(Callback):
    """A first step that takes long, as where it is compiled."""

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == 0:
            time.sleep(1.5 * LIMIT)


def watched(*others: Callback) -> list[Callback]:
    return [LastWords(), Watchdog(limit_minutes=LIMIT / 60), Pace(), *others]


def stuck(rank: int, how: str) -> list[Callback]:
    return watched(Stuck(rank, how))


def slow_but_well() -> list[Callback]:
    return [*watched(SlowStart()), Pace(in_validation=1.2 * LIMIT)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "how", "said"),
    [
        (1, "sleep", f"behind: rank 1 on {HOST} at step 4, in test_watchdog.py:"),
        (1, "after-forward", f"behind: rank 1 on {HOST} at step 4, in test_watchdog.py:"),
        (1, "stop", f"behind: rank 1 on {HOST} last heard of at step"),
        (0, "stop", "rank 0 is behind: its store does not answer"),
    ],
)
def test_a_hang_ends_and_names_who_hangs(
    tiny_shards: Path, tmp_path: Path, rank: int, how: str, said: str, fault: Callable[..., None]
) -> None:
    run = Run(tiny_shards, tmp_path, 1000, ranks=2, callbacks=partial(stuck, rank, how))
    with started(run) as processes:
        reach(tmp_path, "train 4", rank)
        begun = time.monotonic()
        ending = [p for r, p in enumerate(processes) if how != "stop" or r != rank]
        for process in ending:
            process.join(60)
        took = time.monotonic() - begun
        assert [process.exitcode for process in ending] == [87] * len(ending), run.said
    assert took < 4 * LIMIT + (15 if rank == 0 else 0)  # the store has 10 s to answer
    assert said in run.said
    assert "no progress for" in run.said
    other = (tmp_path / f"hang-rank-{1 - rank}.txt").read_text()
    assert "Thread" in other
    assert (tmp_path / f"hang-rank-{rank}.txt").exists() == (how != "stop")
    fault(
        {"sleep": "a rank sleeps before a step", "stop": f"rank {rank} stands still"}.get(
            how, "a rank sleeps after the forward pass"
        ),
        injected="SIGSTOP" if how == "stop" else "sleep(1000)",
        outcome=f"{LIMIT:.0f} s limit: after {took:.0f} s exit 87, the rank named, stacks written",
        lost="since the last checkpoint",
        identical="-",
    )


@pytest.mark.slow
def test_a_slow_first_step_and_a_long_validation_are_no_hang(
    tiny_shards: Path, tmp_path: Path
) -> None:
    trainer = {"limit_val_batches": 1, "val_check_interval": 3, "check_val_every_n_epoch": None}
    run = Run(tiny_shards, tmp_path, 6, ranks=2, trainer=trainer, callbacks=slow_but_well)
    train(run)
    assert "no progress" not in run.said
    assert not list(tmp_path.glob("hang-*"))


def pulse(rank: int, **but: Any) -> Pulse:
    said: dict[str, Any] = {"step": 7, "beats": 20, "posts": 5, "place": "x.py:1 f"}
    return Pulse(rank, f"node{rank}", **(said | {"waiting": True} | but))


def test_who_is_silent_comes_before_who_is_slow_and_who_works_before_who_waits() -> None:
    before = [pulse(0), pulse(1), pulse(2)]
    later = [pulse(0, posts=6), pulse(1, posts=6), pulse(2, posts=6)]
    silent = [later[0], pulse(1), later[2]]
    assert behind(before, silent) == ["rank 1 on node1 last heard of at step 7"]
    slow = [later[0], pulse(1, posts=6, beats=19, step=6), later[2]]
    assert behind(before, slow) == ["rank 1 on node1 at step 6, in x.py:1 f"]
    works = [*later[:2], pulse(2, posts=6, waiting=False)]
    assert behind(before, works) == ["rank 2 on node2 at step 7, in x.py:1 f"]
    assert len(behind(before, later)) == 3  # the network, then
    assert behind([None, *before[1:]], [None, *later[1:]]) == ["rank 0 (never heard of)"]


@pytest.mark.parametrize("name", ["limit_minutes", "slow_limit_minutes"])
def test_a_limit_is_some_time(name: str) -> None:
    with pytest.raises(ValueError, match=rf"watchdog\.{name} must be above 0 or null, got 0"):
        Watchdog(**{name: 0.0})


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_does_not_keep_a_hang_alive(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    process = get_context("spawn").Process(target=_hang, args=(tmp_path / "file" / "run",))
    process.start()
    process.join(60)
    assert process.exitcode == 87


def _hang(folder: Path) -> None:
    _Watcher(0.4, 0.4, folder).start()
    time.sleep(100)
