import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rad.data.decode import decode
from lightning_rad.modalities.radiograph import decode_image
from lightning_rad.schema import Box, Fixation, Radiograph
from lightning_rad.sharding.encode import clip, encode_image, fault_of, fill_depth, shrink
from lightning_rad.sharding.recipe import ImageSettings
from tests.sharding.phantoms import phantom

NUMBER = st.floats(-300, 300)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(8, 100))
@settings(deadline=None, max_examples=60)
def test_shrinking_sets_the_short_side_keeps_the_shape_and_never_enlarges(height, width, side):
    pixels = phantom("s", height=height, width=width)
    small = shrink(pixels, side)
    if min(height, width) <= side:
        assert np.array_equal(small, pixels)
    else:
        assert min(small.shape) == side
        assert small.shape[0] / height == pytest.approx(small.shape[1] / width, rel=1 / side)
        assert abs(float(small.mean()) - float(pixels.mean())) < 3


def test_shrinking_averages_instead_of_picking():
    stripes = np.tile(np.array([0, 200], np.uint8), (64, 32))
    assert set(np.unique(shrink(stripes, 32))) == {100}


@given(NUMBER, NUMBER, NUMBER, NUMBER, st.floats(0.1, 1), st.floats(0.1, 1))
@settings(deadline=None)
def test_a_box_covers_the_same_pixels_after_scaling_or_is_refused(x, y, w, h, across, down):
    width, height = 100 * across, 80 * down
    box = clip(Box("m", x, y, w, h), (across, down), width, height)
    left, right = max(0.0, x), min(100.0, x + w)
    top, bottom = max(0.0, y), min(80.0, y + h)
    if box is None:
        assert (right - left) * across < 0.01 or (bottom - top) * down < 0.01
        return
    assert (box["x"], box["w"]) == pytest.approx((left * across, (right - left) * across), abs=0.01)
    assert (box["y"], box["h"]) == pytest.approx((top * down, (bottom - top) * down), abs=0.01)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_a_box_that_is_not_finite_is_refused(wrong):
    assert clip(Box("m", wrong, 0, 5, 5), (1, 1), 10, 10) is None
    assert clip(Box("m", 0, 0, 5, wrong), (1, 1), 10, 10) is None


@pytest.mark.parametrize(
    ("dtype", "bits", "quality", "suffix"),
    [
        (np.uint8, 8, 90, "jpg"),
        (np.uint8, 8, None, "png"),
        (np.uint16, 12, 90, "png"),
        (np.uint16, 8, 90, "jpg"),
    ],
)
def test_depth_decides_the_format_and_what_is_described_is_what_decodes(
    dtype, bits, quality, suffix
):
    pixels = phantom("e", dtype=dtype, top=2**bits - 1)
    image = Radiograph(pixels, "PA", bits, {"b": 1, "a": None}, (Box("m", 1, 2, 3, 4),))
    found, data, entry, faults = encode_image(image, ImageSettings(None, quality))
    decoded = decode_image(data).pixels
    assert (found, entry["bits"], faults) == (suffix, bits, [])
    assert decoded.shape == (entry["height"], entry["width"]) == pixels.shape
    assert decoded.dtype == (np.uint16 if bits > 8 else np.uint8)
    error = np.abs(decoded.astype(int) - fill_depth(pixels, bits)).max()
    assert error == 0 if suffix == "png" else error < 12
    assert list(entry["labels"].items()) == [("a", None), ("b", 1)]


@pytest.mark.parametrize("bits", range(1, 17))
def test_stored_pixels_fill_their_depth_and_give_the_recorded_ones_back(bits):
    ramp = np.arange(2**bits, dtype=np.uint16).reshape(2, -1)
    stored = fill_depth(ramp, bits)
    depth = 8 * stored.itemsize
    assert depth == (8 if bits <= 8 else 16)
    assert np.array_equal(stored >> (depth - bits), ramp)
    assert stored.max() >= 2 ** (depth - 1)


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 15, 16])
def test_what_training_reads_of_a_deep_image_spans_all_greys(bits):
    ramp = np.linspace(0, 2**bits - 1, 4096).round().astype(np.uint16).reshape(64, 64)
    suffix, data, entry, _ = encode_image(Radiograph(ramp, bits=bits), ImageSettings())
    greys = decode(data, suffix)
    assert (greys.min(), greys.max(), entry["bits"]) == (0, 255, bits)
    np.testing.assert_allclose(greys, ramp / (2**bits - 1) * 255, atol=1.01)


def test_boxes_shrink_with_their_image_and_refusals_say_why():
    boxes = (Box("in", 10, 20, 8, 4), Box("out", 200, 0, 5, 5))
    image = Radiograph(phantom("e", height=80, width=64), boxes=boxes)
    _, _, entry, faults = encode_image(image, ImageSettings(32, 90))
    assert entry["boxes"] == [{"label": "in", "x": 5.0, "y": 10.0, "w": 4.0, "h": 2.0}]
    assert faults == ["degenerate box: no part of it lies in the image"]


def test_the_digest_is_of_the_sources_pixels_not_of_the_copy():
    image = Radiograph(phantom("e", height=80, width=64))
    entries = [encode_image(image, ImageSettings(side, 50))[2] for side in (None, 32)]
    assert entries[0]["pixels"] == entries[1]["pixels"]
    assert entries[0]["fingerprint"] == entries[1]["fingerprint"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixels": np.zeros((3, 3, 3), np.uint8)}, "wrong pixels: uint8 (3, 3, 3)"),
        ({"pixels": np.zeros((3, 3), np.float32)}, "wrong pixels: float32"),
        ({"pixels": np.zeros((0, 3), np.uint8)}, "wrong pixels"),
        ({"bits": 9}, "pixels exceed their bits"),
        (
            {"pixels": np.full((3, 3), 4096, np.uint16), "bits": 12},
            "pixels exceed their bits: 4096",
        ),
        ({"labels": {"Mass": 2}}, "label out of range: Mass is 2"),
        ({"labels": {"Masss": 1}}, "unknown finding: Masss"),
        ({"fixations": (Fixation(0.1, float("nan"), 1),)}, "damaged gaze"),
        ({"fixations": (Fixation(0.1, 0.1, -1),)}, "damaged gaze"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_kind(changes, message):
    image = Radiograph(**({"pixels": np.zeros((3, 3), np.uint8), "labels": {"Mass": 1}} | changes))
    assert fault_of(image, ("Mass",)).startswith(message)
    assert (
        fault_of(Radiograph(np.zeros((3, 3), np.uint8), labels={"Mass": None}), ("Mass",)) is None
    )
