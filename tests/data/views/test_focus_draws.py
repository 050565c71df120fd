"""What a focus view draws: a pure function of what it may depend on, and of no more."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from lightning_rad.data.views.blur import Blur
from lightning_rad.data.views.focus_crop import FocusCrop
from lightning_rad.data.views.focus_cutout import FocusCutout
from lightning_rad.data.views.focus_drop import FocusDrop
from lightning_rad.data.views.focus_view import FocusView
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.intensity import Intensity
from lightning_rad.data.views.noise import Noise
from lightning_rad.data.views.placement import seen_at
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.data.views.random_zoom import RandomZoom, ZoomCrop, ZoomCutout
from lightning_rad.modalities.gaze import Saliency, heat_map
from tests.data.views.looking import (
    FIELDS,
    SALIENCY,
    SIZE,
    assert_same,
    drawn,
    looks,
    magnification,
)
from tests.data.views.rendering import noise_images, on_cpu, on_device


def full(**changes):
    return FocusView(
        64,
        saliency=SALIENCY,
        crop=FocusCrop(rotation=20.0, flip=0.3),
        cutout=FocusCutout(probability=0.6),
        drop=FocusDrop(probability=0.6),
        intensity=Intensity(),
        blur=Blur(),
        noise=Noise(),
        **changes,
    )


def test_a_row_is_the_same_alone_and_in_any_batch():
    maps = looks(12)
    whole = drawn(full(), maps)
    assert_same(whole, drawn(full(), maps[4:7], first=4), slice(4, 7))
    assert_same(whole, drawn(pickle.loads(pickle.dumps(full())), maps))


def test_seed_epoch_unit_and_view_each_change_it():
    maps = looks(30)
    first = drawn(full(), maps)
    for other in ({"seed": 4}, {"epoch": 1}, {"first": 30}, {"number": 1}):
        changed = drawn(full(), maps, **other)
        for name in FIELDS[1:-1]:
            assert (getattr(changed, name) != getattr(first, name)).any(), (other, name)


def test_another_part_or_none_leaves_the_other_parts_draws():
    maps = looks(20)
    whole = drawn(full(), maps)
    view = full()
    for part, field in (
        ("intensity", "luts"),
        ("blur", "kernels"),
        ("noise", "noise"),
        ("cutout", "holes"),
        ("drop", "shade"),
    ):
        without = drawn(FocusView(64, saliency=SALIENCY, **parts(view, part)), maps)
        for name in FIELDS[:-1]:
            if name != field:
                np.testing.assert_array_equal(getattr(without, name), getattr(whole, name))
    more = parts(view, "crop") | {"crop": replace(view.crop, redraws=300)}
    np.testing.assert_array_equal(drawn(FocusView(64, **more), maps).luts, whole.luts)


def parts(view, left_out):
    names = ("crop", "cutout", "drop", "intensity", "blur", "noise")
    return {name: getattr(view, name) for name in names if name != left_out}


def test_greys_blur_and_noise_are_those_of_a_random_view():
    changes = {"intensity": Intensity(), "blur": Blur(), "noise": Noise()}
    focused = drawn(FocusView(64, **changes), looks(10))
    rows = np.arange(10)
    plain = RandomView(64, crop=Crop(), **changes).draw(
        focused.sizes, seed=3, epochs=rows * 0, units=rows, view=0
    )
    for name in ("luts", "kernels", "noise"):
        np.testing.assert_array_equal(getattr(focused, name), getattr(plain, name))


def test_the_map_of_one_image_changes_no_other_row():
    maps = looks(12)
    whole, other = drawn(full(), maps), drawn(full(), [None, *maps[1:]])
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(whole, name)[1:], getattr(other, name)[1:])


def test_how_fine_the_map_is_does_not_change_what_is_taken():
    found = []
    for side in (32, 128):
        view = FocusView(
            96,
            saliency=Saliency(side=side),
            crop=FocusCrop(rotation=15.0),
            cutout=FocusCutout(probability=1.0),
        )
        found.append(drawn(view, looks(side=side)))
    coarse, fine = found
    assert (coarse.affine == fine.affine).all((1, 2)).mean() > 0.8
    assert (coarse.exhausted == fine.exhausted).mean() > 0.85


# --- pixels


@pytest.mark.parametrize("sizes", [[(64, 80), (200, 300), (33, 17), (150, 90)] * 3])
def test_both_renderers_show_the_same(sizes):
    images = noise_images(sizes)
    maps = [looks(1, size=size, seed=row)[0] for row, size in enumerate(sizes)]
    view = FocusView(
        48,
        crop=FocusCrop(rotation=20.0, flip=0.5),
        cutout=FocusCutout(probability=0.6),
        drop=FocusDrop(probability=0.6),
        intensity=Intensity(),
        noise=Noise(),
    )
    rows = np.arange(len(sizes))
    params = view.draw_focused(np.array(sizes), maps, seed=0, epochs=rows * 0, units=rows, view=0)
    np.testing.assert_array_equal(on_cpu(images, params), on_device(images, params))


def test_a_drop_is_bright_where_the_view_shows_what_was_looked_at():
    drop = FocusDrop(probability=1.0, spread=0.05)
    view = FocusView(96, saliency=SALIENCY, crop=FocusCrop(rotation=30.0, flip=0.5), drop=drop)
    look = (0.62, 0.37)
    maps = [heat_map([(*look, 1.0)], SIZE, side=48, spread=0.03)] * 30
    params = drawn(view, maps)
    white = [np.full(SIZE, 255, np.uint8)] * 30
    views = on_cpu(white, replace(params, affine=params.affine))
    point = np.array([[look[0] * SIZE[1], look[1] * SIZE[0]]])
    told = 0
    for row in range(30):
        x, y = seen_at(point, params, row)[0]
        if not (10 < x < 86 and 10 < y < 86):
            continue
        told += 1
        assert views[row, int(y), int(x)] > 250
        far = np.hypot(*(np.mgrid[:96, :96] + 0.5 - np.array([y, x])[:, None, None])) > 40
        assert views[row][far].max() < 90
    assert told > 10


# --- the control


def test_the_control_is_the_first_window_and_the_first_rectangle_of_the_same_numbers():
    greys = {"intensity": Intensity(), "blur": Blur(), "noise": Noise()}
    control = RandomZoom(
        64, crop=ZoomCrop(rotation=10.0), cutout=ZoomCutout(probability=0.7), **greys
    )
    rows = np.arange(60)
    sizes = np.tile(SIZE, (60, 1))
    got = control.draw(sizes, seed=3, epochs=rows * 0, units=rows, view=0)
    assert got.exhausted is None
    assert got.shade is None
    lenient = FocusView(
        64,
        crop=FocusCrop(rotation=10.0, keep=0.0),
        cutout=FocusCutout(probability=0.7, mass=1.0),
        **greys,
    )
    assert_same(replace(drawn(lenient, looks(60)), exhausted=None), got)
    strict = drawn(
        FocusView(64, crop=FocusCrop(rotation=10.0), cutout=FocusCutout(probability=0.7), **greys),
        looks(60),
    )
    np.testing.assert_allclose(magnification(strict), magnification(got), rtol=1e-3)
    for name in ("luts", "kernels", "noise"):
        np.testing.assert_array_equal(getattr(strict, name), getattr(got, name))
    np.testing.assert_array_equal(strict.holes.any((1, 2)), got.holes.any((1, 2)))
    assert (strict.affine != got.affine).any((1, 2)).mean() > 0.3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ZoomCrop(zoom=(0.5, 1.0)), r"^crop\.zoom: "),
        (lambda: ZoomCrop(rotation=200.0), r"^crop\.rotation: "),
        (lambda: ZoomCutout(least=0.0), r"^cutout\.least: "),
        (lambda: ZoomCutout(fill=300), r"^cutout\.fill: "),
        (lambda: FocusView(0), r"^size: "),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_no_two_parts_share_their_numbers():
    """Of 600 views a quarter have both hole and darkness, and nothing of it goes with the zoom."""
    view = FocusView(
        16,
        crop=FocusCrop(rotation=0.0),
        cutout=FocusCutout(probability=0.5, mass=1.0),
        drop=FocusDrop(probability=0.5),
    )
    params = drawn(view, looks(600))
    hole, dark = params.holes.any((1, 2)), (params.shade < 255).any((1, 2))
    assert (hole & dark).mean() == pytest.approx(0.25, abs=0.06)
    shown = magnification(params)
    assert np.abs(np.corrcoef(params.holes[hole, 0].T, shown[hole])[-1, :-1]).max() < 0.2
    zoom = shown < np.median(shown)
    for part in (hole, dark):
        assert (part & zoom).mean() == pytest.approx(0.25, abs=0.06)
