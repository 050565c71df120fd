"""A few of the random deaths of `make soak`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runs import Run, train
from tests.soak import compared, soak

KILLS = 4


@pytest.mark.slow
def test_a_run_of_random_deaths_ends_as_one_that_nothing_happened_to(
    tmp_path: Path, tiny_shards: Path, fault: Callable[..., None]
) -> None:
    calm = Run(
        tiny_shards,
        tmp_path / "calm",
        800,  # more than the deaths leave time for
        ranks=2,
        save_every=10,
        in_background=True,
        objective="moco",
    )
    train(calm, timeout=600)
    rough = replace(calm, folder=tmp_path / "rough")
    told = soak(rough, KILLS)
    assert sum(told["deaths"].values()) == KILLS
    assert compared(rough, calm) == {"differences": [], "order and pixels equal": True}
    deaths = ", ".join(f"{n} {kind}" for kind, n in sorted(told["deaths"].items()))
    fault(
        f"{KILLS} deaths at random moments, saving or not (make soak: 200)",
        injected=deaths,
        outcome="goes on each time from the newest whole checkpoint",
        lost=told["steps done again"],
    )
