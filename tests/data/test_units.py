"""Which images a unit holds and which of them its views show."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from lightning_rad.data.units import shown_images, units_of
from tests.data.sets import index_of


def shown(counts: Any, views: int, images: Any = "distinct", **name: Any) -> np.ndarray:
    """[V, R] for rows of some counts of images; unit r of data epoch 0 unless told."""
    count_R = np.array(counts, np.int64)
    row = np.arange(len(count_R))
    name = {"seed": 5, "epoch_R": row * 0, "unit_R": row} | name
    return shown_images(count_R, views=views, images=images, **name)


def test_a_unit_holds_the_images_of_its_studies() -> None:
    index = index_of([[[2, 1], [3]], [[1]]])
    for unit, sizes in (("image", [1] * 7), ("study", [2, 1, 3, 1]), ("patient", [3, 3, 1])):
        units = units_of(index, unit)
        assert np.diff(units.first).tolist() == sizes
        assert units.image.tolist() == list(range(7))


def test_studies_of_an_unknown_patient_stay_units_of_their_own() -> None:
    index = index_of([[[2, 1], [3]], [[1]]])
    index.studies["patient"][[0, 3]] = 0
    assert np.diff(units_of(index, "patient").first).tolist() == [2, 1, 3, 1]


@pytest.mark.parametrize("unit", ["image", "study", "patient"])
def test_studies_that_take_no_part_leave_the_numbers_of_images_as_they_are(unit: str) -> None:
    index = index_of([[[2, 1], [3]], [[1, 2], [2]]])
    some = units_of(index, unit, np.array([1, 0, 1, 1, 0, 1], np.bool_))
    assert some.image.tolist() == [0, 1, 3, 4, 5, 6, 9, 10]
    sizes = {"image": [1] * 8, "study": [2, 3, 1, 2], "patient": [2, 3, 1, 2]}
    assert np.diff(some.first).tolist() == sizes[unit]
    lead = index.images["study"][some.image[some.first[:-1]]]
    assert some.shard.tolist() == index.shard_of_study[lead].tolist()
    assert some.patient.tolist() == index.studies["patient"][lead].tolist()
    every = units_of(index, unit, np.ones(6, np.bool_))
    for name in ("first", "image", "shard", "patient"):
        assert np.array_equal(getattr(every, name), getattr(units_of(index, unit), name))


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.sampled_from([1, 2, 3, 4, 7, 1000]), min_size=1, max_size=40),
    views=st.integers(1, 6),
    seed=st.integers(0, 2**63),
)
def test_views_show_different_images_until_they_run_out(
    counts: list[int], views: int, seed: int
) -> None:
    for count, column in zip(counts, shown(counts, views, seed=seed).T.tolist(), strict=True):
        first = column[:count]
        assert len(set(first)) == len(first)
        assert all(0 <= image < count for image in first)
        assert column == [first[view % len(first)] for view in range(views)]


@pytest.mark.parametrize(
    ("images", "views", "count"),
    [
        ("distinct", 2, 2),
        ("distinct", 2, 5),
        ("distinct", 3, 4),
        ("distinct", 4, 4),
        ("independent", 2, 3),
    ],
)
def test_each_order_of_images_is_equally_likely(images: str, views: int, count: int) -> None:
    columns = shown([count] * 60_000, views, images).T
    codes, seen = np.unique(columns @ count ** np.arange(views), return_counts=True)
    orders = len(list(permutations(range(count), views)))
    assert len(codes) == (orders if images == "distinct" else count**views)
    assert chisquare(seen).pvalue > 1e-3


def test_a_choice_is_a_function_of_seed_epoch_and_unit_alone() -> None:
    counts = np.array([3, 1000, 1, 2, 7] * 20)
    whole, rows = shown(counts, 3), np.arange(100)
    some = rows[::-3]
    again = shown(counts[some], 3, epoch_R=some * 0, unit_R=rows[some])
    assert np.array_equal(again, whole[:, some])
    assert np.array_equal(shown(counts, 2), whole[:2])
    for other in ({"seed": 6}, {"epoch_R": rows * 0 + 1}, {"unit_R": rows + 100}):
        same = (shown(counts, 3, **other) == whole).all(0)[counts > 2]
        assert same.mean() < 0.15


def test_the_choice_stays_what_it_was() -> None:
    """A change of these numbers would show a resumed run other images."""
    assert shown([5, 2, 1, 1000], 3).tolist() == [[0, 0, 0, 399], [2, 1, 0, 68], [1, 0, 0, 518]]
    independent = shown([5, 2, 1, 1000], 3, "independent").tolist()
    assert independent == [[0, 0, 0, 399], [0, 0, 0, 641], [3, 0, 0, 198]]
