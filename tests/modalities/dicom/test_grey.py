"""What is seen, against the formulas of the standard written down once more, pixel by pixel."""

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rad.modalities.dicom import DicomSettings, decode_dicom
from lightning_rad.modalities.radiograph import UnreadableImageError
from tests.modalities.dicom.files import EXPLICIT, IMPLICIT, dicom, lut, ramp


def shown(values, **given):
    """The picture of a file of these values; `given` holds tags and settings."""
    keys = {"window", "percentiles", "depth"} & given.keys()
    choice = DicomSettings(**{key: given.pop(key) for key in keys})
    return decode_dicom(dicom(values, **given), choice).pixels


def through(x, centre, width, function="LINEAR"):
    """PS3.3 C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2 for one value."""
    if function == "SIGMOID":
        return 1 / (1 + math.exp(min(-4 * (x - centre) / width, 500)))
    if function == "LINEAR_EXACT":
        if x <= centre - width / 2:
            return 0
        return 1 if x > centre + width / 2 else (x - centre) / width + 0.5
    if x <= centre - 0.5 - (width - 1) / 2:
        return 0
    if x > centre - 0.5 + (width - 1) / 2:
        return 1
    return (x - (centre - 0.5)) / (width - 1) + 0.5


def expected(values, levels_of, *, inverted=False, top=255):
    grey = [levels_of(int(v)) for v in values.ravel()]
    seen = [round(top * (1 - g if inverted else g)) for g in grey]
    return np.array(seen).reshape(values.shape)


def agree(pixels, reference):
    assert pixels.shape == reference.shape
    assert np.abs(pixels.astype(int) - reference).max() <= 0  # also at halves: both round to even


@given(
    st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID", None]),
    st.floats(-1500, 3500),
    st.floats(2, 5000),
    st.sampled_from([(1.0, 0.0), (-0.5, 300.0), (2.5, -1024.0)]),
    st.sampled_from([(8, False), (10, False), (12, True), (16, False), (16, True)]),
    st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
)
@settings(deadline=None, max_examples=60)
def test_windows_are_those_of_the_standard(function, centre, width, rescale, form, photometric):
    bits, signed = form
    values = ramp(8, 40, bits=bits, signed=signed)
    centre, width = round(centre, 1), round(width, 1)
    reference = expected(
        values,
        lambda v: through(v * rescale[0] + rescale[1], centre, width, function or "LINEAR"),
        inverted=photometric == "MONOCHROME1",
    )
    tags = {"VOILUTFunction": function} if function else {}
    make = {
        "bits": bits,
        "WindowCenter": centre,
        "WindowWidth": width,
        "RescaleSlope": rescale[0],
        "RescaleIntercept": rescale[1],
        "PhotometricInterpretation": photometric,
    }
    if np.ptp(reference) == 0:
        with pytest.raises(UnreadableImageError, match="blank picture"):
            shown(values, **make, **tags)
    else:
        assert np.abs(shown(values, **make, **tags).astype(int) - reference).max() <= 1
        assert (shown(values, **make, **tags) != reference).mean() < 0.02  # rounding of floats


def test_a_window_of_the_whole_range_leaves_eight_bits_as_they_are():
    values = np.arange(256, dtype=np.uint8).reshape(8, 32)
    assert np.array_equal(shown(values, bits=8, WindowCenter=128, WindowWidth=256), values)


def test_linear_and_linear_exact_differ_by_their_half_level():
    values = np.arange(16, dtype=np.uint8).reshape(1, 16)
    make = {"bits": 8, "WindowCenter": 8, "WindowWidth": 4}
    linear = shown(values, **make)[0]
    exact = shown(values, **make, VOILUTFunction="LINEAR_EXACT")[0]
    assert linear[5:11].tolist() == [0, 0, 85, 170, 255, 255]
    assert exact[5:11].tolist() == [0, 0, 64, 128, 191, 255]


def test_a_window_of_width_one_is_a_threshold_and_of_none_is_refused():
    values = np.arange(16, dtype=np.uint8).reshape(1, 16)
    assert shown(values, bits=8, WindowCenter=8, WindowWidth=1)[0].tolist() == [0] * 8 + [255] * 8
    with pytest.raises(UnreadableImageError, match=r"^damaged window: of width 0$"):
        shown(values, bits=8, WindowCenter=8, WindowWidth=0)
    with pytest.raises(UnreadableImageError, match=r"^damaged window: an unknown VOI LUT Func"):
        shown(values, bits=8, WindowCenter=8, WindowWidth=4, VOILUTFunction="CUBIC")


def test_monochrome1_is_inverted_once_whatever_the_presentation_shape_says():
    values = ramp()
    make = {"WindowCenter": 1500, "WindowWidth": 3000}
    bright = shown(values, **make)
    dark = shown(values, **make, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(dark, 255 - bright)
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        shape = {"PhotometricInterpretation": photometric, "PresentationLUTShape": "INVERSE"}
        assert np.array_equal(shown(values, **make, **shape), dark)


def test_inversion_comes_after_the_voi_lut_not_before():
    values = ramp()
    curve = (np.linspace(0, 1, 4096) ** 3 * 1023).round()
    table = {"VOILUTSequence": [lut(0, 10, curve)], "PhotometricInterpretation": "MONOCHROME1"}
    reference = expected(values, lambda v: curve[v] / 1023, inverted=True)
    assert np.abs(shown(values, **table).astype(int) - reference).max() <= 1


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize("signed", [False, True])
def test_luts_clamp_at_both_ends_and_may_begin_below_zero(syntax, signed):
    values = ramp(bits=12, signed=signed)
    first = -600 if signed else 900
    modality = np.arange(700)[::-1] * 5
    place = {"ModalityLUTSequence": [lut(first, 12, modality)]}
    curve = np.arange(3000) // 12
    voi = {"VOILUTSequence": [lut(200, 8, curve)]}
    item = place["ModalityLUTSequence"][0]
    item.ModalityLUTType = "US"

    def level(v):
        x = modality[min(max(v - first, 0), 699)]
        return curve[min(max(x - 200, 0), 2999)] / 255

    agree(shown(values, syntax=syntax, **place, **voi), expected(values, level))


def test_a_lut_of_eight_bits_may_be_packed_two_in_a_word():
    values = np.arange(16, dtype=np.uint8).reshape(1, 16)
    item = lut(0, 8, range(16))
    packed = bytes((17 * np.arange(16)).astype(np.uint8))
    item.add_new("LUTData", "OW", packed)
    pixels = shown(values, bits=8, VOILUTSequence=[item])
    assert pixels[0].tolist() == (17 * np.arange(16)).tolist()


def test_a_lut_may_have_all_65536_entries_and_too_few_are_refused():
    values = ramp(bits=16)
    whole = {"VOILUTSequence": [lut(0, 16, range(65536))], "syntax": IMPLICIT}
    agree(shown(values, bits=16, **whole), expected(values, lambda v: v / 65535))
    short = lut(0, 16, range(100))
    short.LUTDescriptor = [200, 0, 16]
    with pytest.raises(UnreadableImageError, match="damaged LUT: fewer entries"):
        shown(values, bits=16, VOILUTSequence=[short])


def test_which_of_several_windows_is_shown_is_a_setting():
    values = ramp()
    make = {"WindowCenter": [1000, 2000], "WindowWidth": [500, 900]}
    make["VOILUTSequence"] = [lut(0, 12, np.arange(4096)[::-1])]
    for number, pair in ((0, (1000, 500)), (1, (2000, 900))):
        reference = expected(values, partial(through, centre=pair[0], width=pair[1]))
        agree(shown(values, window=number, **make), reference)
    reversed_lut = expected(values, lambda v: (4095 - v) / 4095)
    agree(shown(values, **make), reversed_lut)
    agree(shown(values, window="lut", **make), reversed_lut)
    with pytest.raises(UnreadableImageError, match=r"^missing window: number 2 of 2"):
        shown(values, window=2, **make)
    with pytest.raises(UnreadableImageError, match=r"^missing window: .* without a VOI LUT"):
        shown(values, window="lut")
    with pytest.raises(UnreadableImageError, match="not as many centres as widths"):
        shown(values, WindowCenter=[1, 2], WindowWidth=3)


@pytest.mark.parametrize("slope", [1, -1])
def test_without_a_window_deep_files_take_percentiles_of_what_is_not_padding(slope):
    values = ramp(60, 50, bits=12)
    values[:12] = 4095
    make = {"PixelPaddingValue": 4095, "RescaleSlope": slope, "RescaleIntercept": 7}
    pixels = shown(values, percentiles=(2, 97), **make)
    inside = values[values != 4095].astype(float) * slope + 7
    low, high = np.percentile(inside, (2, 97), method="inverted_cdf")
    reference = expected(
        values, lambda v: through(v * slope + 7, (low + high) / 2, high - low, "LINEAR_EXACT")
    )
    reference[values == 4095] = 0
    assert np.abs(pixels.astype(int) - reference).max() <= 1
    assert (pixels != reference).mean() < 0.01


def test_without_a_window_eight_bits_keep_their_range_unless_percentiles_are_asked_for():
    values = (ramp(bits=8) // 2 + 30).astype(np.uint8)
    assert np.array_equal(shown(values, bits=8), values)
    wide = shown(values, bits=8, window="percentile", percentiles=(0, 100))
    assert (wide.min(), wide.max()) == (0, 255)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_in_either_photometric_interpretation(photometric):
    values = ramp(bits=12, signed=True)
    values[:4] = -2048
    values[4:8, ::2] = -2040
    make = {"PhotometricInterpretation": photometric, "PixelPaddingValue": -2048}
    make |= {"WindowCenter": 0, "WindowWidth": 4096}
    pixels = shown(values, **make)
    assert (pixels[values == -2048] == 0).all()
    assert (pixels[values == -2040] == (0 if photometric == "MONOCHROME2" else 255)).all()
    ranged = shown(values, **make, PixelPaddingRangeLimit=-2040)
    assert (ranged[values <= -2040] == 0).all()
    assert np.array_equal(ranged[values > -2040], pixels[values > -2040])


def test_sixteen_bits_come_out_where_there_is_more_to_show_than_256_levels():
    values = ramp(64, 64, bits=14)
    make = {"bits": 14, "depth": 16, "WindowCenter": 8192, "WindowWidth": 16384}
    stored = decode_dicom(
        dicom(values, bits=14, WindowCenter=8192, WindowWidth=16384), DicomSettings(depth=16)
    )
    assert (stored.pixels.dtype, stored.bits) == (np.uint16, 16)
    reference = expected(values, lambda v: through(v, 8192, 16384), top=65535)
    assert np.abs(stored.pixels.astype(int) - reference).max() <= 1
    assert shown(values, **make | {"WindowWidth": 200}).dtype == np.uint8


def test_a_picture_of_one_level_or_that_its_window_leaves_blank_is_refused():
    with pytest.raises(UnreadableImageError, match="blank picture: all its stored"):
        shown(np.full((8, 8), 77, np.uint16))
    with pytest.raises(UnreadableImageError, match="blank picture: its window"):
        shown(ramp(), WindowCenter=30000, WindowWidth=10)
    with pytest.raises(UnreadableImageError, match="damaged header: a rescale slope"):
        shown(ramp(), RescaleSlope=0, RescaleIntercept=0)
