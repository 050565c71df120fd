import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rad.data.views.intensity import Intensity

IDENTITY = np.arange(256)


def drawn(intensity, n=4000):
    return intensity.draw(np.random.default_rng(0).random((n, Intensity.draws))).astype(int)


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 1), st.floats(0, 0.95), st.floats(1, 5))
def test_tables_never_reverse_greys_unless_a_negative_is_asked_for(brightness, contrast, gamma):
    tables = drawn(
        Intensity(probability=1.0, brightness=brightness, contrast=contrast, gamma=gamma), 50
    )
    assert (np.diff(tables, axis=1) >= 0).all()


@settings(deadline=None, max_examples=50)
@given(u=st.lists(st.floats(0, 1, exclude_max=True), min_size=3, max_size=3))
def test_tables_equal_the_formula_computed_one_grey_at_a_time(u):
    table = Intensity(1.0, brightness=0.2, contrast=0.4, gamma=2.0).draw(
        np.array([[0.5, *u, 0.9, 0.9]])
    )[0]
    shift, slope, power = -0.2 + 0.4 * u[0], 0.6 + 0.8 * u[1], 2.0 ** (2 * u[2] - 1)
    for grey in range(256):
        value = slope * ((grey / 255) ** power - 0.5) + 0.5 + shift
        assert abs(table[grey] - 255 * min(max(value, 0), 1)) <= 0.5 + 1e-9


def test_a_table_is_changed_as_often_as_asked():
    changed = (drawn(Intensity(probability=0.3)) != IDENTITY).any(1).mean()
    assert abs(changed - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 4000)


@pytest.mark.parametrize("key", ["invert", "solarise"])
def test_negatives_come_as_often_as_asked_and_apart_from_the_rest(key):
    tables = drawn(Intensity(probability=0.0, **{key: 0.25}))
    negative = 255 - IDENTITY
    if key == "solarise":
        negative = np.where(IDENTITY > 127, negative, IDENTITY)
    is_negative = (tables == negative).all(1)
    assert (is_negative | (tables == IDENTITY).all(1)).all()
    assert abs(is_negative.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 4000)


def test_the_ranges_of_brightness_contrast_and_gamma_are_used_and_kept():
    only = {"probability": 0.5, "brightness": 0.0, "contrast": 0.0, "gamma": 1.0}
    middle = drawn(Intensity(**only | {"brightness": 0.2}))[:, 128] / 255 - 128 / 255
    assert -0.203 < middle.min() < -0.195
    assert 0.195 < middle.max() < 0.203
    tables = drawn(Intensity(**only | {"contrast": 0.3}))
    slope = (tables[:, 150] - tables[:, 100]) / 50
    assert 0.68 <= slope.min() < 0.72
    assert 1.28 < slope.max() <= 1.32
    power = np.log(drawn(Intensity(**only | {"gamma": 1.5}))[:, 64] / 255) / np.log(64 / 255)
    assert 1 / 1.52 < power.min() < 1 / 1.48
    assert 1.48 < power.max() < 1.52
    assert abs(np.log(power).mean()) < 0.03


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("probability", -0.1),
        ("brightness", 1.1),
        ("contrast", 1.0),
        ("gamma", 0.9),
        ("invert", 2.0),
        ("solarise", float("nan")),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=rf"^intensity\.{key}: .*accepted: "):
        Intensity(**{key: value})
