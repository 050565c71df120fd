"""Running statistics: those of all rows at once, without NaN, and then of the newer ones."""

import math

import pytest
import torch

from lightning_rad.nn.running_z_score import RunningZScore


def rows(count: int, seed: int = 0) -> torch.Tensor:
    """Five features of very different sizes, some of them unknown."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(count, 5, generator=generator, dtype=torch.float64)
    made = made * torch.tensor([1.0, 1e-4, 1e8, 3.0, 0.1]) + torch.tensor([0, 1, 1e9, -7, 0])
    made[torch.rand(count, 5, generator=generator) < 0.2] = math.nan
    return made


def test_statistics_are_those_of_all_rows_so_far_whatever_batches_they_came_in() -> None:
    score, whole = RunningZScore(5), rows(301)
    for batch in whole.split([1, 100, 7, 64, 128, 1]):
        score.update(batch)
    for column in range(5):
        known = whole[:, column][~whole[:, column].isnan()]
        assert int(score.count[column]) == len(known)
        assert float(score.mean[column]) == pytest.approx(float(known.mean()), rel=1e-12)
        deviation = math.sqrt(float(score.spread[column]) / len(known))
        assert deviation == pytest.approx(float(known.std(correction=0)), rel=1e-9)
    scored = score(whole)
    assert scored.dtype == torch.float32
    wanted = (whole[:, 3] - score.mean[3]) / (score.spread[3] / score.count[3]).sqrt()
    some = ~wanted.isnan() & (wanted.abs() < 5)
    torch.testing.assert_close(scored[some, 3].double(), wanted[some], rtol=1e-6, atol=1e-6)
    assert score(whole, torch.float64).dtype == torch.float64


def test_unknown_values_and_features_that_do_not_vary_become_zero_and_far_ones_are_held() -> None:
    score = RunningZScore(4, limit=3.0)
    assert score(torch.full((2, 4), 7.0)).abs().max() == 0  # before any row
    score.update(torch.tensor([[0.0, 0.1, 1.0, math.nan], [2.0, 0.1, 3.0, math.nan]]))
    score.update(torch.tensor([[1.0, 0.1, 2.0, math.nan]] * 3))
    given = torch.tensor([[1e9, 0.1, math.nan, 1.0], [-1e9, 5.0, 2.0, 1.0]])
    assert score(given).tolist() == [[3.0, 0.0, 0.0, 0.0], [-3.0, 0.0, 0.0, 0.0]]


def test_a_batch_without_a_known_value_changes_nothing() -> None:
    score = RunningZScore(5)
    score.update(rows(20))
    before = {name: value.clone() for name, value in score.state_dict().items()}
    score.update(torch.full((8, 5), math.nan))
    score.update(torch.zeros(0, 5))
    for name, value in score.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_beyond_its_memory_it_follows_a_change_and_before_it_does_not_forget() -> None:
    short, long = RunningZScore(1, memory=100), RunningZScore(1, memory=100_000)
    old, new = torch.zeros(50, 1), torch.full((50, 1), 8.0)
    for batch in [old] * 20 + [new] * 20:
        short.update(batch)
        long.update(batch)
    assert float(long.mean) == pytest.approx(4.0, rel=1e-12)
    assert float(short.mean) == pytest.approx(8.0, abs=1e-2)
    assert float(short.count) == 100
    assert float(long.count) == 2000


def test_state_is_kept_in_float64_and_has_no_parameters() -> None:
    score = RunningZScore(3)
    assert {name: value.dtype for name, value in score.state_dict().items()} == dict.fromkeys(
        ("count", "mean", "spread"), torch.float64
    )
    assert not list(score.parameters())
    given = torch.randn(4, 3, requires_grad=True)
    score.update(given)
    assert not score(given).requires_grad


@pytest.mark.parametrize(
    ("options", "message"), [({"memory": 1}, "z_score.memory"), ({"limit": 0.0}, "z_score.limit")]
)
def test_useless_settings_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunningZScore(3, **options)  # type: ignore[arg-type]
