"""The real DICOM files: what they are known to show, and their very values."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from lightning_rad.modalities.dicom import DicomSettings
from lightning_rad.modalities.radiograph import UnreadableImageError, read_image

DATA = os.environ.get("RAD_SAMPLE_DATA")
FOLDER = Path(DATA or "") / "dicom"
NIH = "1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm"
pytestmark = pytest.mark.skipif(
    not (DATA and FOLDER.is_dir()), reason="needs real files: set RAD_SAMPLE_DATA to their folder"
)

ANY = {"modalities": ["CR", "MG"], "secondary_capture": True}
STORED = {
    "CR-ModalitySequenceLUT.dcm": "cbb20687fdc832cc",
    "GH133.dcm": "cc9e4d5b757bb6ae",
    "RG1_J2KI.dcm": "88aa9135b12d8582",
    "RG3_J2KI.dcm": "25559cb05640e9e9",
    "RG3_J2KR.dcm": "85480a0287e37795",
    "CR-MONO1-10-chest": "400ebd95cd997250",
}
"""File -> digest of its stored values, as a second decoder gave them: for lossless JPEG libjpeg of
T. Richter, for JPEG 2000 that of GDCM."""


def picture(name, **settings):
    return read_image(FOLDER / name, dicom=DicomSettings(**ANY | settings))


@pytest.mark.parametrize("name", STORED)
def test_stored_values_are_those_of_another_decoder(name, monkeypatch):
    from lightning_rad.modalities.dicom import reading

    seen = []

    def watched(dataset):
        seen.append(reading_values(dataset))
        return seen[0]

    reading_values = reading.stored_values
    monkeypatch.setattr(reading, "stored_values", watched)
    picture(name)
    assert hashlib.sha256(seen[0].astype("<u2").tobytes()).hexdigest()[:16] == STORED[name]


@pytest.mark.parametrize(
    ("name", "shape", "view"),
    [
        (NIH, (1024, 1024), "PA"),
        ("CR-MONO1-10-chest", (440, 440), "PA"),
        ("RG1_J2KI.dcm", (1955, 1841), "PA"),
        ("RG3_J2KR.dcm", (1760, 1760), "AP"),
        ("CR-ModalitySequenceLUT.dcm", (1576, 1976), ""),
        ("GH133.dcm", (3062, 2394), ""),
    ],
)
def test_each_file_gives_its_size_and_view_and_no_identifier_in_its_repr(name, shape, view):
    stored = picture(name)
    assert (stored.pixels.shape, stored.pixels.dtype, stored.bits) == (shape, np.uint8, 8)
    assert stored.header.view == view
    for value in (stored.header.patient_id, stored.header.study_uid, stored.header.instance_uid):
        assert not value or value not in repr(stored)


def test_bones_and_mediastinum_are_bright_and_lungs_dark_in_every_chest():
    # (left lung, spine) as fractions of height and width, looked up by eye
    places = {
        NIH: ((0.45, 0.72), (0.75, 0.50)),
        "CR-MONO1-10-chest": ((0.50, 0.20), (0.75, 0.47)),
        "RG1_J2KI.dcm": ((0.40, 0.80), (0.75, 0.45)),
    }
    for name, (lung, spine) in places.items():
        pixels = picture(name).pixels
        assert around(pixels, *spine) > around(pixels, *lung) + 30, name


def around(pixels, row, column, reach=12):
    at = (int(row * pixels.shape[0]), int(column * pixels.shape[1]))
    return pixels[at[0] - reach : at[0] + reach, at[1] - reach : at[1] + reach].mean()


def test_the_made_up_monochrome1_header_shows_the_same_picture_inverted():
    assert np.array_equal(picture("Fake_MONOHR1.dcm").pixels, 255 - picture(NIH).pixels)


def test_the_leg_is_white_on_black_and_lossy_and_lossless_files_of_it_agree():
    lossless, lossy = (picture(f"RG3_J2K{end}.dcm").pixels.astype(int) for end in "RI")
    assert np.abs(lossless - lossy).mean() < 1.5
    # between tibia and edge of the leg, the exposed air beside it, the tibia's cortex
    assert around(lossless, 0.3, 0.29) < 40
    assert around(lossless, 0.3, 0.47) > 150


def test_a_linear_window_of_a_real_file_is_the_formula():
    stored = np.frombuffer((FOLDER / "CR-MONO1-10-chest").read_bytes()[-387200:], "<u2")
    level = ((stored.reshape(440, 440).astype(float) - 549.5) / 1023 + 0.5).clip(0, 1)
    assert np.array_equal(picture("CR-MONO1-10-chest").pixels, np.rint(255 * (1 - level)))


def test_the_mammogram_is_refused_by_default_and_shown_by_lut_or_sigmoid_where_asked_for():
    with pytest.raises(UnreadableImageError, match=r"^wrong modality: MG, accepted are CR, DX$"):
        read_image(FOLDER / "GH133.dcm")
    first, sigmoid = picture("GH133.dcm").pixels, picture("GH133.dcm", window=0).pixels
    assert np.abs(first.astype(int) - sigmoid).max() <= 2  # its LUT is that curve, in 12 bits
    assert (picture("GH133.dcm", window="percentile").pixels[:, :900] == 0).mean() > 0.9  # padding


def test_files_made_from_png_are_refused_unless_secondary_captures_are_accepted():
    with pytest.raises(UnreadableImageError, match=r"^secondary capture: "):
        read_image(FOLDER / NIH)
    assert picture(NIH).header.patient_age == 62.0
