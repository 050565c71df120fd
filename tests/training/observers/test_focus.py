"""What focus views had to make do with is logged as shares of what was drawn since the last log."""

from types import SimpleNamespace
from typing import Any

import pytest

from lightning_rad.training.observers.focus import FocusRate


class Run:
    """A trainer whose data module counts, and a module that keeps what is logged."""

    def __init__(self, every: int = 2, **counts: int) -> None:
        self.focus = {"drawn": 0, "crop_exhausted": 0, "cutout_exhausted": 0, "blank": 0} | counts
        self.trainer = SimpleNamespace(
            global_step=0, log_every_n_steps=every, datamodule=SimpleNamespace(focus=self.focus)
        )
        self.told: list[dict[str, float]] = []
        self.module = SimpleNamespace(log_dict=self.told.append)
        self.rate = FocusRate()
        self.rate.on_train_start(self.trainer, self.module)  # type: ignore[arg-type]

    def step(self, *, stepped: bool = True, **counts: int) -> None:
        for name, count in counts.items():
            self.focus[name] += count
        self.trainer.global_step += stepped
        given: Any = (self.trainer, self.module, None, None, 0)
        self.rate.on_train_batch_end(*given)


def test_shares_are_of_what_was_drawn_since_the_last_log() -> None:
    run = Run(drawn=1000, crop_exhausted=1000)  # of another fit: counts from the start of this one
    run.step(drawn=8, crop_exhausted=2, blank=1)
    assert run.told == []
    run.step(drawn=8, cutout_exhausted=4)
    run.step(drawn=8)
    run.step(drawn=8, crop_exhausted=16)
    assert run.told == [
        {
            "data/focus_crop_exhausted": 2 / 16,
            "data/focus_cutout_exhausted": 4 / 16,
            "data/focus_blank": 1 / 16,
        },
        {
            "data/focus_crop_exhausted": 1.0,
            "data/focus_cutout_exhausted": 0.0,
            "data/focus_blank": 0.0,
        },
    ]


def test_micro_batches_of_a_step_are_logged_once_and_all_counted() -> None:
    run = Run(every=1)
    for _ in range(2):
        run.step(stepped=False, drawn=4, blank=4)
        run.step(drawn=4)
    assert [shares["data/focus_blank"] for shares in run.told] == [0.5, 0.5]


@pytest.mark.parametrize("without", ["draws", "counters", "data"])
def test_it_is_silent_where_nothing_was_drawn(without: str) -> None:
    run = Run(every=1)
    if without == "counters":
        run.trainer.datamodule = SimpleNamespace()
    if without == "data":
        run.trainer.datamodule = None
    run.step()
    assert run.told == []
