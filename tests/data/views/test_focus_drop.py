"""Focus drop: bright where readers looked, never darker than the floor."""

import cv2
import numpy as np
import pytest

from lightning_rad.data.views.focus_drop import FocusDrop
from lightning_rad.modalities.gaze import heat_map

SHAPE = (112, 112)


def one_look(x=0.5, y=0.5, side=64):
    return heat_map([(x, y, 1.0)], SHAPE, side=side, spread=0.04)


def shade(drop, maps, shape=SHAPE):
    return drop.draw(np.full((len(maps), 1), 0.2), maps, shape)


def test_it_is_the_codes_rule_at_its_own_size():
    """A map of 224 cells, blurred by OpenCV's kernel of 199 pixels; nothing near the border."""
    map_SS = one_look(side=224)
    soft = cv2.GaussianBlur(map_SS / map_SS.max(), (199, 199), 0, borderType=cv2.BORDER_CONSTANT)
    want = np.clip(soft / (soft.max() + 0.01) + 0.1, 0, 1)
    got = shade(FocusDrop(spread=30.2 / 224), [map_SS], (224, 224))[0] / 255
    np.testing.assert_allclose(got, want, atol=0.01)


def test_what_was_looked_at_stays_and_what_was_not_is_as_dark_as_the_floor():
    got = shade(FocusDrop(floor=0.2, spread=0.05), [one_look(0.75, 0.25)])[0]
    row, column = np.unravel_index(got.argmax(), got.shape)
    assert abs(row - 0.25 * 112) < 10
    assert abs(column - 0.75 * 112) < 10
    assert got.max() == 255
    assert got[-10:, :10].max() == round(0.2 * 255)


def test_the_scale_and_the_grid_of_the_map_do_not_matter():
    drop = FocusDrop()
    got = shade(drop, [one_look(), one_look() * 1e-6])
    np.testing.assert_array_equal(got[0], got[1])
    finer = shade(drop, [one_look(side=128)])[0].astype(int)
    assert np.abs(finer - got[0]).max() <= 2


@pytest.mark.parametrize("blank", [None, np.zeros((8, 8)), np.full((8, 8), np.nan)])
def test_without_saliency_nothing_is_darkened(blank):
    assert (shade(FocusDrop(), [blank]) == 255).all()


def test_it_fires_as_often_as_asked():
    u = np.random.default_rng(0).random((50, 1))
    got = FocusDrop(probability=0.4).draw(u, [one_look()] * 50, SHAPE)
    np.testing.assert_array_equal((got < 255).any((1, 2)), u[:, 0] < 0.4)


@pytest.mark.parametrize(("key", "value"), [("probability", 2), ("spread", 0.0), ("floor", 1.1)])
def test_what_is_out_of_range_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=rf"^drop\.{key}: "):
        FocusDrop(**{key: value})
