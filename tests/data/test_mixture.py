"""Shares of a batch, and refusals that name the nearest setting that works."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rad.data.mixture import check_ranks, divide


@settings(deadline=None)
@given(
    st.lists(st.floats(0.01, 100), min_size=1, max_size=6),
    st.integers(1, 16),
    st.integers(6, 60),
)
def test_shares_add_up_in_whole_groups(weights: list[float], groups: int, rounds: int) -> None:
    named = {str(i): w for i, w in enumerate(weights)}
    shares = divide(groups * rounds, named, groups)
    assert sum(shares.values()) == groups * rounds
    assert all(share >= groups and share % groups == 0 for share in shares.values())
    for name, weight in named.items():
        exact = weight / sum(weights) * rounds
        if all(w / sum(weights) * rounds >= 1 for w in weights):
            assert abs(shares[name] / groups - exact) < 1


@pytest.mark.parametrize(
    ("batch", "groups", "said"),
    [(100, 64, "128"), (63, 64, "64"), (0, 8, "8"), (130, 64, "128")],
)
def test_a_batch_that_groups_do_not_divide_is_told_the_nearest(
    batch: int, groups: int, said: str
) -> None:
    with pytest.raises(ValueError, match=rf"data\.global_batch={batch} .*: {said}$"):
        divide(batch, {"a": 1.0}, groups)


@pytest.mark.parametrize(
    ("ranks", "groups", "said"), [(3, 8, "2, 4"), (5, 64, "4, 8"), (100, 64, "64")]
)
def test_ranks_that_do_not_divide_the_groups_are_told_the_nearest(
    ranks: int, groups: int, said: str
) -> None:
    with pytest.raises(ValueError, match=f"{ranks} ranks .*: {said}$"):
        check_ranks(ranks, groups)


def test_weights_must_be_positive_and_sets_must_fit() -> None:
    with pytest.raises(ValueError, match="positive"):
        divide(64, {"a": 1.0, "b": 0.0}, 8)
    with pytest.raises(ValueError, match="at least 24"):
        divide(16, {"a": 1.0, "b": 1.0, "c": 1.0}, 8)
