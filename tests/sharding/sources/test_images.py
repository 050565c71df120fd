import os
from itertools import product

import cv2
import numpy as np
import pytest

from lightning_rad.modalities.radiograph import UnreadableImageError
from lightning_rad.sharding.sources.images import (
    MANY,
    ImageFiles,
    cut_out,
    eight_bits,
    images_from,
    inverse,
)
from tests.sharding.phantoms import phantom, write_images


def test_a_file_is_taken_from_the_first_place_that_has_it(tmp_path):
    for place in ("b", "a_1", "a_2"):
        write_images(tmp_path / place, ["x.png"], height=40 + len(list(tmp_path.iterdir())))
    files = ImageFiles(tmp_path, images_from(["a_*", "b"]))
    assert files.find("x.png") == tmp_path / "a_1" / "x.png"
    with pytest.raises(UnreadableImageError, match="missing file"):
        files.pixels("y.png", bits=None, inverted=False)


def test_percentiles_are_the_images_own_and_leave_8_bit_images_alone(tmp_path):
    write_images(tmp_path, ["deep.png"], dtype=np.uint16, top=3000)
    write_images(tmp_path, ["flat.png"], top=90)
    files = ImageFiles(tmp_path, images_from({"percentiles": [1, 99]}))
    deep, bits, _ = files.pixels("deep.png", bits=None, inverted=False)
    assert (deep.dtype, bits, deep.min(), deep.max()) == (np.uint8, 8, 0, 255)
    flat, bits, _ = files.pixels("flat.png", bits=None, inverted=False)
    assert (flat == phantom("flat.png", top=90)).all()


def test_percentiles_are_met_to_a_level_and_what_is_beyond_is_cut_off():
    pixels = np.arange(10_001, dtype=np.uint16).reshape(1, -1).repeat(40, axis=0)
    grey = eight_bits(pixels, 10, 90)
    expected = np.clip((np.arange(10_001) - 1000) / 8000 * 255, 0, 255)
    assert np.abs(grey[0] - expected).max() <= 1
    assert (eight_bits(np.full((3, 3), 7, np.uint16), 1, 99) == 0).all()


@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 8), (np.uint16, 12), (np.uint16, 16)])
def test_an_inverse_is_of_the_bits_in_use(dtype, bits):
    top = (1 << bits) - 1
    pixels = np.array([[0, 1, top]], dtype)
    turned = inverse(pixels, bits)
    assert turned.tolist() == [[top, top - 1, 0]]
    assert turned.dtype == dtype


def test_a_root_that_is_no_folder_of_images_is_one_line(tmp_path):
    archive = tmp_path / "set.zip"
    archive.write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"root: .*set\.zip is a file, not a folder; unpack"):
        ImageFiles(archive, images_from(["."])).check()
    with pytest.raises(ValueError, match=r"root: .*none: No such file or directory"):
        ImageFiles(tmp_path / "none", images_from(["."])).check()
    with pytest.raises(ValueError, match=r"has no images or more; set\.zip is there: unpack it"):
        ImageFiles(tmp_path, images_from(["images", "more"])).check()


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    if os.geteuid() == 0:  # whom no mode keeps out
        monkeypatch.setattr(type(tmp_path), "iterdir", refused)
    else:
        tmp_path.chmod(0)
    with pytest.raises(ValueError, match=rf"root: {tmp_path}: Permission denied"):
        ImageFiles(tmp_path, images_from(["."])).check()
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("percentiles", [[1], [99, 1], [-1, 50], "low", [0, 101]])
def test_percentiles_that_are_none_are_refused(percentiles):
    with pytest.raises(ValueError, match="'percentiles' must be two numbers in 0 to 100"):
        images_from({"percentiles": percentiles})


def test_a_colour_png_is_still_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "c.png"), np.dstack([phantom(i) for i in range(3)]))
    with pytest.raises(UnreadableImageError, match="colour"):
        ImageFiles(tmp_path, images_from(["."])).pixels("c.png", bits=None, inverted=True)


def test_parts_of_a_file_share_no_pixel_and_leave_none_out():
    pixels = np.arange(7 * 5, dtype=np.uint16).reshape(7, 5)
    borders = [(0, 0.5), (0.5, 1)]
    parts = [cut_out(pixels, [x[0], y[0], x[1], y[1]]) for x, y in product(borders, borders)]
    assert sorted(v for part in parts for v in part.ravel().tolist()) == list(range(35))
    assert cut_out(pixels, [0, 0, 0.4, 1]).tolist() == pixels[:, :2].tolist()
    with pytest.raises(UnreadableImageError, match="a part of it has no pixel"):
        cut_out(pixels, [0, 0, 0.05, 1])


@pytest.mark.parametrize(
    "borders", [[0, 0, 1], [0.5, 0, 0.5, 1], [0, 0, 2, 1], [0, 1, 1, 0.5], "left", [0, 0, True, 1]]
)
def test_parts_that_are_none_are_refused_by_name(borders):
    with pytest.raises(ValueError, match=r"'parts\.1' is .*; accepted are left, top, right and"):
        images_from({"parts": {"1": borders}})


def test_many_places_are_listed_once_and_the_first_still_wins(tmp_path, monkeypatch):
    for i in range(MANY + 2):
        write_images(tmp_path / f"p{i:03d}", [f"{i}.png", "same.png"])
    files = ImageFiles(tmp_path, images_from(["p*"]))
    assert files.find("same.png") == tmp_path / "p000" / "same.png"
    monkeypatch.setattr(type(tmp_path), "iterdir", None)
    assert files.find(f"{MANY}.png") == tmp_path / f"p{MANY:03d}" / f"{MANY}.png"
    assert files.find("other.png") is None
