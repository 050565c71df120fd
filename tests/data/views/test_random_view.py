import pickle

import numpy as np
import pytest

from lightning_rad.data.views.blur import Blur
from lightning_rad.data.views.cutout import Cutout
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.intensity import Intensity
from lightning_rad.data.views.noise import Noise
from lightning_rad.data.views.random_view import RandomView
from tests.data.views.rendering import noise_images, on_cpu, on_device

SIZES = np.array([(90, 100), (64, 64), (33, 120), (200, 180), (17, 9)])
IMAGES = noise_images(SIZES)
PARTS = {
    "crop": Crop(),
    "intensity": Intensity(1.0),
    "blur": Blur(1.0, (0.5, 2.0)),
    "noise": Noise(1.0, (2.0, 5.0)),
    "cutout": Cutout(probability=1.0),
}
FIELDS = ("sizes", "factors", "affine", "luts", "kernels", "noise", "holes")
RECIPE = RandomView(24, **PARTS)


def drawn(rows=slice(None), recipe=RECIPE, *, seed=3, epoch=0, first_unit=10, view=0):
    units = first_unit + np.arange(len(SIZES))[rows]
    epochs = np.full(len(units), epoch)
    return recipe.draw(SIZES[rows], seed=seed, epochs=epochs, units=units, view=view)


@pytest.mark.parametrize("render", [on_cpu, on_device])
@pytest.mark.parametrize("rows", [[2], [4, 3, 2, 1, 0], [1, 3], [0, 0, 2]])
def test_a_view_is_the_same_in_whatever_batch_it_is_rendered(render, rows):
    whole = render(IMAGES, drawn())
    some = render([IMAGES[row] for row in rows], drawn(rows))
    np.testing.assert_array_equal(some, whole[rows])


def test_the_same_names_give_the_same_pixels_and_any_other_name_changes_every_view():
    pixels = on_cpu(IMAGES, drawn())
    np.testing.assert_array_equal(on_cpu(IMAGES, drawn()), pixels)
    copy = pickle.loads(pickle.dumps(RECIPE))
    np.testing.assert_array_equal(on_cpu(IMAGES, drawn(recipe=copy)), pixels)
    for other in ({"seed": 4}, {"epoch": 1}, {"first_unit": 11}, {"view": 1}):
        changed = on_cpu(IMAGES, drawn(**other)) != pixels
        assert changed.any((1, 2)).all()


@pytest.mark.parametrize("part", ["intensity", "blur", "noise", "cutout"])
def test_leaving_a_part_out_leaves_the_draws_of_the_others(part):
    full, less = drawn(), drawn(recipe=RandomView(24, **{**PARTS, part: None}))
    differing = {f for f in FIELDS if not np.array_equal(getattr(full, f), getattr(less, f))}
    own = {"intensity": "luts", "blur": "kernels", "noise": "noise", "cutout": "holes"}[part]
    assert differing == {own}


def test_only_a_crop_leaves_greys_alone():
    image = [np.full((50, 60), 93, np.uint8)]
    recipe = RandomView(20, crop=Crop(rotation=0.0))
    one = np.zeros(1, int)
    params = recipe.draw(np.array([(50, 60)]), seed=0, epochs=one, units=one, view=0)
    assert (on_cpu(image, params) == 93).all()


@pytest.mark.parametrize("size", [0, -3, 2049])
def test_a_size_out_of_range_is_refused_by_name(size):
    with pytest.raises(ValueError, match=r"^size: .*accepted: 1 to 2048"):
        RandomView(size, crop=Crop())


def test_an_image_too_long_for_the_coordinates_is_refused():
    one = np.zeros(1, int)
    with pytest.raises(ValueError, match="1 to 16384"):
        RECIPE.draw(np.array([(20000, 5)]), seed=0, epochs=one, units=one, view=0)
