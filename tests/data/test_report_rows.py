"""What is drawn for a study's report, and the tensors that rows of reports become."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_rad.data.report_rows import ReportRows, drawn_sentence, flips
from lightning_rad.modalities.reading import ReadReport

ROWS = np.arange(20_000)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_share_is_mirrored(share: float) -> None:
    got = flips(5, ROWS * 0, ROWS, share)
    assert abs(got.mean() - share) <= 4 * (share * (1 - share) / len(ROWS)) ** 0.5


def test_what_a_smaller_share_mirrors_a_larger_one_does_too() -> None:
    few, many = (flips(5, ROWS * 0, ROWS, share) for share in (0.3, 0.6))
    assert (many >= few).all()


def test_draws_are_functions_of_seed_epoch_and_unit_alone() -> None:
    some = ROWS[::-7]
    assert np.array_equal(
        flips(5, some * 0 + 2, some, 0.5), flips(5, ROWS * 0 + 2, ROWS, 0.5)[some]
    )
    plain = flips(5, ROWS * 0, ROWS, 0.5)
    for other in (flips(6, ROWS * 0, ROWS, 0.5), flips(5, ROWS * 0 + 1, ROWS, 0.5)):
        assert 0.45 < (other == plain).mean() < 0.55
    sentence = drawn_sentence(5, ROWS * 0, ROWS)
    assert np.array_equal(drawn_sentence(5, some * 0, some), sentence[some])
    assert 0.45 < (plain == (sentence >> np.uint64(63)).astype(bool)).mean() < 0.55
    counts = np.bincount((sentence % np.uint64(7)).astype(np.int64))
    assert counts.min() > 0.9 * len(ROWS) / 7


def test_the_draws_stay_what_they_were() -> None:
    """A change of these numbers would show a resumed run other studies mirrored."""
    epoch, unit = np.array([0, 0, 0, 1, 1, 1, 7, 7]), np.array([0, 1, 2, 0, 1, 2, 500, 501])
    assert flips(0, epoch, unit, 0.5).tolist() == [bool(b) for b in (0, 1, 0, 1, 0, 1, 1, 0)]
    assert (drawn_sentence(0, epoch, unit) % np.uint64(1000)).tolist() == [
        997,
        69,
        637,
        673,
        919,
        227,
        983,
        254,
    ]


def report(*lengths: int, start: int = 1) -> ReadReport:
    tokens = {
        name: np.arange(start, start + length) for name, length in zip("ab", lengths, strict=False)
    }
    return ReadReport("text", -start, tokens)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=9), st.integers(100, 110))
def test_a_table_is_as_wide_as_its_longest_row_in_eights_up_to_the_limit(
    lengths: list[int], limit: int
) -> None:
    rows = ReportRows(np.zeros(len(lengths), np.bool_), {"a": limit})
    for row in reversed(range(len(lengths))):  # in any order
        rows.put(row, report(lengths[row], start=row + 1))
    made = rows.tensors()
    assert made.hash.tolist() == [-row - 1 for row in range(len(lengths))]
    table = made.tokens["a"]
    assert table.shape[1] == min(-(-max(lengths) // 8) * 8, limit)
    for row, length in enumerate(lengths):
        assert table[row].tolist() == [
            *range(row + 1, row + 1 + length),
            *[-1] * (table.shape[1] - length),
        ]


def test_each_kind_of_tokens_has_a_width_of_its_own() -> None:
    rows = ReportRows(np.array([True, False]), {"a": 100, "b": 12})
    rows.put(0, report(17, 3))
    rows.put(1, report(2, 11))
    made = rows.tensors()
    assert {name: t.shape[1] for name, t in made.tokens.items()} == {"a": 24, "b": 12}
    assert made.flipped.tolist() == [True, False]
    assert (made.hash.dtype, made.tokens["a"].dtype, made.flipped.dtype) == (
        torch.int64,
        torch.int64,
        torch.bool,
    )


def test_some_rows_of_reports_are_views_of_them() -> None:
    rows = ReportRows(np.array([True, False, True]), {"a": 100})
    for row in range(3):
        rows.put(row, report(row + 1, start=row + 1))
    made = rows.tensors()
    some = made.rows(slice(1, 3))
    assert some.hash.tolist() == [-2, -3]
    assert some.flipped.tolist() == [False, True]
    assert some.tokens["a"].data_ptr() == made.tokens["a"][1].data_ptr()
