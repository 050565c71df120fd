import numpy as np
import pytest
from scipy import stats

from lightning_rad.randomness import hash64, uniforms

ALPHA = 1e-4  # every draw is fixed, so a test that passes once passes always


def scalar_hash(*parts):
    """SplitMix64 in Python integers, chained over the parts."""
    mask, state = 2**64 - 1, 0
    for part in parts:
        z = (state + (part + 1) * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        state = z ^ (z >> 31)
    return state


def grid(seed=0, epochs=4, units=2048, view=0, n=4):
    epoch, unit = np.meshgrid(np.arange(epochs), np.arange(units), indexing="ij")
    return uniforms(seed, epoch.ravel(), unit.ravel(), view, n).reshape(epochs, units, n)


def test_first_outputs_are_those_published_for_splitmix64_seeded_with_zero():
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    assert hash64(np.arange(4)).tolist() == published


def test_equals_a_scalar_implementation_on_any_mix_of_scalars_and_arrays():
    a, b = np.arange(3)[:, None] - 1, np.arange(5) * 10**15
    got = hash64(7, a, -3, b)
    want = [[scalar_hash(7, int(x) % 2**64, 2**64 - 3, int(y)) for y in b] for x in a[:, 0]]
    assert got.dtype == np.uint64
    assert got.tolist() == want


def test_neither_words_nor_order_of_parts_are_interchangeable():
    values = [hash64("order", 1), hash64("views", 1), hash64(1, 2), hash64(2, 1), hash64(0, 1, 2)]
    assert len({int(v) for v in values}) == len(values)


def test_a_hash_of_a_single_part_never_collides():
    assert len(np.unique(hash64("order", 3, np.arange(200_000)))) == 200_000


def test_floats_are_refused():
    with pytest.raises(TypeError, match="float64"):
        hash64(np.zeros(3))


def test_a_row_depends_neither_on_the_batch_nor_on_the_number_of_columns():
    whole = uniforms(5, np.array([0, 1, 1]), np.array([9, 8, 7]), 1, 6)
    alone = uniforms(5, np.array([1]), np.array([8]), 1, 3)
    np.testing.assert_array_equal(whole[1:2, :3], alone)


def test_a_uniform_is_the_top_of_the_hash_of_its_name():
    got = uniforms(5, np.array([2, 3]), np.array([9, 8]), 1, 4)
    bits = [
        [int(hash64("views", 5, *name, 1, j)) >> 11 for j in range(4)] for name in [(2, 9), (3, 8)]
    ]
    np.testing.assert_array_equal(got * 2**53, bits)


@pytest.mark.parametrize("column", range(4))
def test_uniform_over_units(column):
    assert stats.kstest(grid()[:, :, column].ravel(), "uniform").pvalue > ALPHA


def test_bits_are_fair_and_flip_with_any_input_bit():
    base = np.arange(4096, dtype=np.uint64)
    for bit in (0, 1, 17, 40, 63):
        flipped = hash64(0, base) ^ hash64(0, base ^ np.uint64(1 << bit))
        rate = np.unpackbits(flipped.view(np.uint8)).reshape(4096, 64).mean(0)
        assert np.abs(rate - 0.5).max() < 5 * 0.5 / np.sqrt(4096)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(grid()[:, :-1], grid()[:, 1:], id="next unit"),
        pytest.param(grid()[:-1], grid()[1:], id="next epoch"),
        pytest.param(grid(view=0), grid(view=1), id="next view"),
        pytest.param(grid(seed=0), grid(seed=1), id="next seed"),
        pytest.param(grid()[..., :-1], grid()[..., 1:], id="next column"),
        pytest.param(grid()[1:, :-1], grid()[:-1, 1:], id="epoch against unit"),
    ],
)
def test_neighbours_are_independent(one, other):
    cells, _, _ = np.histogram2d(one.ravel(), other.ravel(), bins=16, range=[[0, 1]] * 2)
    assert stats.chisquare(cells.ravel()).pvalue > ALPHA
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5 / np.sqrt(one.size)
