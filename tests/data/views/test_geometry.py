import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lightning_rad.data.views.geometry import FACTORS, Crop, affine_map
from tests.data.views.rendering import noise_images, on_cpu, placed

ALPHA = 1e-4
SHAPE = (32, 48)


def drawn(crop, size=(300, 400), n=4000):
    u = np.random.default_rng(0).random((n, Crop.draws))
    affine, factors = crop.draw(u, np.tile(size, (n, 1)), SHAPE)
    linear = affine[:, :, :2] * factors[:, None, None] / 2.0**16
    return affine, factors, linear * [SHAPE[1], SHAPE[0]]


def source_points(affine, factors, view_points):
    """Source pixels (edges at whole numbers) that points of the view show."""
    ones = np.ones((len(view_points), 1))
    reduced = np.concatenate([view_points - 0.5, ones], 1) @ affine.transpose(0, 2, 1) / 2.0**16
    return (reduced - 2.0**-6 + 0.5) * factors[:, None, None]


def test_the_whole_image_at_its_own_size_is_itself():
    image = noise_images([(37, 53)])
    np.testing.assert_array_equal(on_cpu(image, placed(image, (37, 53))), image)


def test_a_whole_crop_is_the_slice():
    image = noise_images([(80, 90)])
    params = placed(image, (20, 30), centre=(40 + 15, 7 + 10), extent=(30, 20))
    np.testing.assert_array_equal(on_cpu(image, params)[0], image[0][7:27, 40:70])


def test_a_crop_of_three_times_the_size_is_the_slice_of_box_means():
    image = noise_images([(80, 90)])
    params = placed(image, (10, 20), centre=(6 + 30, 9 + 15), extent=(60, 30))
    boxes = image[0][9:39, 6:66].reshape(10, 3, 20, 3).mean((1, 3))
    np.testing.assert_allclose(on_cpu(image, params)[0], boxes, atol=0.51)


def test_a_mirror_is_exact():
    image = noise_images([(31, 44)])
    params = placed(image, (31, 44), mirrored=True)
    np.testing.assert_array_equal(on_cpu(image, params)[0], image[0][:, ::-1])


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (-90, -1), (180, 2), (0, 0), (-180, 2)])
def test_a_quarter_turn_of_the_crop_turns_the_contents_the_other_way(degrees, turns):
    image = noise_images([(41, 41)])
    got = on_cpu(image, placed(image, (41, 41), degrees=degrees))[0]
    np.testing.assert_array_equal(got, np.rot90(image[0], turns))


def test_outside_the_image_is_zero():
    image = [np.full((20, 20), 255, np.uint8)]
    got = on_cpu(image, placed(image, (40, 40), extent=(40, 40)))[0]
    expected = np.zeros((40, 40), np.uint8)
    expected[10:30, 10:30] = 255
    np.testing.assert_array_equal(got, expected)


@settings(deadline=None, max_examples=100)
@given(
    extent=st.tuples(st.floats(5, 100), st.floats(5, 100)),
    centre=st.tuples(st.floats(110, 145), st.floats(110, 145)),
    degrees=st.floats(-180, 180),
    mirrored=st.booleans(),
    shape=st.tuples(st.integers(2, 60), st.integers(2, 60)),
)
def test_ramps_show_the_point_that_trigonometry_says(extent, centre, degrees, mirrored, shape):
    """A linear ramp survives box means and bilinear weights: its grey is its coordinate."""
    ramp = np.arange(256, dtype=np.uint8)
    images = [np.tile(ramp, (256, 1)), np.tile(ramp[:, None], (1, 256))]
    params = placed(images, shape, centre=centre, extent=extent, degrees=degrees, mirrored=mirrored)
    got_x, got_y = on_cpu(images, params)
    v, u = np.meshgrid(*((np.arange(n) + 0.5) / n - 0.5 for n in shape), indexing="ij")
    across, down = (-u if mirrored else u) * extent[0], v * extent[1]
    angle = np.radians(degrees)
    x = centre[0] + np.cos(angle) * across - np.sin(angle) * down - 0.5
    y = centre[1] + np.sin(angle) * across + np.cos(angle) * down - 0.5
    rounded = 1.02 + params.factors[0] / 64  # two greys rounded, and the point to 1/32 pixel
    np.testing.assert_allclose(got_x, x, atol=rounded)
    np.testing.assert_allclose(got_y, y, atol=rounded)


@settings(deadline=None, max_examples=100)
@given(step=st.tuples(st.floats(0.1, 40), st.floats(0.1, 40)))
def test_the_factor_is_the_largest_that_the_finer_axis_allows(step):
    one = np.ones((1, 2))
    _, factors = affine_map(
        one, np.array([step]) * 8, degrees=one[0, :1], mirrored=one[0, :1] > 1, shape=(8, 8)
    )
    allowed = [k for k in FACTORS if k <= 1.25 * min(step)] or [1]
    assert factors[0] == max(allowed)


def test_a_grating_too_fine_for_the_view_is_suppressed_where_bilinear_sampling_aliases():
    """Period 4.3 pixels, shrunk fourfold: nothing of it can be shown, all contrast is aliasing."""
    wave = 127.5 + 127.5 * np.sin(2 * np.pi * np.arange(512) / 4.3)
    image = [np.tile(wave.round().astype(np.uint8), (512, 1))]
    ours = on_cpu(image, placed(image, (128, 128)))[0]
    plain = cv2.resize(image[0], (128, 128), interpolation=cv2.INTER_LINEAR)
    assert plain.std() > 40
    assert ours.std() < 0.2 * plain.std()


@pytest.mark.parametrize("size", [(300, 400), (400, 300), (64, 640)])
def test_the_drawn_area_is_uniform_whatever_the_aspect_of_the_image(size):
    _, _, sides = drawn(Crop(scale=(0.25, 0.9), ratio=(0.5, 2.0), rotation=30.0), size)
    share = np.abs(np.linalg.det(sides)) / (size[0] * size[1])
    assert stats.kstest(share, "uniform", (0.25, 0.65)).pvalue > ALPHA


def test_the_ratio_keeps_its_bounds_and_is_log_uniform_where_it_fits():
    _, _, sides = drawn(Crop(scale=(0.05, 0.3), ratio=(0.8, 1.25), rotation=0.0), (400, 400))
    ratio = np.log(sides[:, 0, 0] / sides[:, 1, 1])
    assert stats.kstest(ratio, "uniform", (np.log(0.8), 2 * np.log(1.25))).pvalue > ALPHA


def test_crops_lie_inside_the_image_and_reach_its_edges():
    affine, factors, _ = drawn(Crop(scale=(0.1, 1.0), ratio=(0.3, 3.0), rotation=0.0))
    corners = source_points(affine, factors, np.array([[0.0, 0.0], [SHAPE[1], SHAPE[0]]]))
    assert corners.min() > -0.05
    assert (corners.max((0, 1)) < [400.05, 300.05]).all()
    assert (corners.min((0, 1)) < 1).all()
    assert (corners.max((0, 1)) > [399, 299]).all()


def test_rotation_is_uniform_within_its_range():
    _, _, sides = drawn(Crop(rotation=12.0))
    degrees = np.degrees(np.arctan2(sides[:, 1, 0], sides[:, 0, 0]))
    assert stats.kstest(degrees, "uniform", (-12, 24)).pvalue > ALPHA


@pytest.mark.parametrize("flip", [0.0, 0.3, 1.0])
def test_mirrors_come_as_often_as_asked(flip):
    _, _, sides = drawn(Crop(flip=flip))
    share = (np.linalg.det(sides) < 0).mean()
    assert abs(share - flip) <= 5 * np.sqrt(flip * (1 - flip) / len(sides))


def test_mirrors_are_off_unless_asked_for():
    assert Crop().flip == 0.0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scale", (0.0, 1.0)),
        ("scale", (0.5, 1.1)),
        ("scale", (0.9, 0.5)),
        ("scale", (float("nan"), 1.0)),
        ("ratio", (0.05, 1.0)),
        ("rotation", -1.0),
        ("rotation", 181.0),
        ("flip", 1.5),
        ("flip", float("nan")),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=rf"^crop\.{key}: "):
        Crop(**{key: value})


def contrast_left(cycles, step):
    """Of a grating of so many cycles a view pixel, of which a view shows `step` times as many."""
    side = round(112 * step)
    wave = 127.5 + 100 * np.sin(2 * np.pi * cycles / step * np.arange(side) + 0.3)
    image = np.rint(wave).astype(np.uint8)[None].repeat(side, 0)
    view = on_cpu([image], placed([image], (112, 112)))[0, 8:-8, 8:-8]
    return view.astype(float).std() / (100 / np.sqrt(2))


@pytest.mark.parametrize("step", [1.3, 1.55, 1.65, 1.9, 2.1, 2.9, 3.5, 4.5, 7.0])
def test_what_a_view_can_show_stays_and_most_of_what_is_finer_goes(step):
    """Just below a factor, too, where bilinear interpolation would pass six tenths of it."""
    assert contrast_left(0.2, step) > 0.75
    if step > 1.6:
        assert contrast_left(0.75, step) < 0.45
        assert contrast_left(0.9, step) < 0.4
