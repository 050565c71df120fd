"""Each way to write a file gives its very values; what is cut or lies is refused."""

import struct
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate

from lightning_rad.modalities import dicom as package
from lightning_rad.modalities.dicom import DicomSettings, decode_dicom
from lightning_rad.modalities.radiograph import UnreadableImageError, decode_image
from tests.modalities.dicom import files
from tests.modalities.dicom.files import dicom, header, ramp, written

WINDOWLESS = DicomSettings(window="percentile", percentiles=(0, 100), depth=16)
"""Lowest value black and highest white, in 16 bits where there are more than 256 levels."""
EXACT = (files.IMPLICIT, files.EXPLICIT, files.BIG, files.DEFLATED, files.RLE)
EXACT += (files.LOSSLESS, files.LOSSLESS_SV1, files.LS, files.J2K_LOSSLESS)


def differ(data, values, share=0.0):
    """Assert that a file's picture is that of values, but for this share of their range."""
    pixels = decode_image(data, dicom=WINDOWLESS).pixels
    top = 65535 if pixels.dtype == np.uint16 else 255
    assert pixels.dtype == (np.uint16 if np.ptp(values.astype(int)) > 255 else np.uint8)
    exact = (values.astype(float) - values.min()) / np.ptp(values.astype(int)) * top
    assert np.abs(pixels - exact).max() <= 0.51 + share * top


@pytest.mark.parametrize("syntax", EXACT)
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_each_lossless_transfer_syntax_gives_the_very_values(syntax, bits):
    values = ramp(33, 41, bits=bits)
    differ(dicom(values, bits=bits, syntax=syntax), values)


@pytest.mark.parametrize("syntax", [*EXACT[:5], files.LS, files.J2K_LOSSLESS])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_signed_values_keep_their_sign(syntax, bits):
    values = ramp(33, 41, bits=bits, signed=True)
    differ(dicom(values, bits=bits, syntax=syntax), values)


def test_lossy_transfer_syntaxes_stay_close():
    values = ramp(64, 64, bits=8)
    differ(dicom(values, bits=8, syntax=files.BASELINE), values, 0.03)
    deep = ramp(64, 64, bits=12)
    for syntax in (files.LS_NEAR, files.J2K, files.EXTENDED):
        differ(dicom(deep, syntax=syntax), deep, 0.01)


@pytest.mark.parametrize("syntax", [files.IMPLICIT, files.EXPLICIT, files.BIG])
def test_a_file_without_preamble_and_meta_is_known_by_its_elements(syntax):
    values = ramp()
    data = dicom(values, syntax=syntax, meta=False)
    assert b"DICM" not in data
    differ(data, values)


def test_bits_above_those_stored_are_an_overlay_a_sign_or_a_fault():
    values = ramp(bits=12)
    dirty = values | np.uint16(0x8000)
    with pytest.raises(UnreadableImageError, match=r"^damaged header: pixels of more than 12 bits"):
        decode_dicom(dicom(dirty), WINDOWLESS)
    data = header(dirty, bits=12)
    data.add_new(0x60000102, "US", 15)
    differ(written(data, dirty), values)
    signed = ramp(bits=12, signed=True)
    clean = (signed.astype(np.int16).view(np.uint16) & 0x0FFF).view(np.int16)
    differ(dicom(clean), signed)


def test_a_high_bit_above_the_stored_ones_shifts_them_down():
    values = ramp(bits=12)
    differ(dicom(values << np.uint16(4), HighBit=15), values)


def test_lossy_values_beyond_the_stored_bits_are_cut_off_not_wrapped():
    values = ramp(bits=12)
    values[0, :5] = 4100
    data = header(values, bits=12)
    frame = files.jpeg_2000(values, 13)
    file = written(data, values, files.J2K_LOSSLESS)
    mine = encapsulate([files.jpeg_2000(values, 12)])
    lossy = file.replace(mine, encapsulate([frame]))
    assert lossy != file
    differ(lossy, np.minimum(values, 4095))


@given(
    st.sampled_from(
        [
            files.EXPLICIT,
            files.RLE,
            files.J2K_LOSSLESS,
            files.LS,
            files.LOSSLESS_SV1,
            files.BASELINE,
            files.DEFLATED,
        ]
    ),
    st.floats(0.02, 0.98),
)
@settings(deadline=None, max_examples=60)
def test_a_file_cut_anywhere_is_refused(syntax, share):
    bits = 8 if syntax == files.BASELINE else 12
    data = dicom(ramp(64, 64, bits=bits), bits=bits, syntax=syntax)
    with pytest.raises(UnreadableImageError):
        decode_image(data[: int(len(data) * share)])


@given(
    st.binary(min_size=8, max_size=400),
    st.sampled_from([b"\x08\x00\x05\x00", b"\0" * 128 + b"DICM"]),
)
@settings(deadline=None, max_examples=60)
def test_junk_that_begins_like_dicom_is_refused(junk, start):
    with pytest.raises(UnreadableImageError):
        decode_image(start + junk)


def test_pixel_data_shorter_than_the_header_says_is_truncated():
    values = ramp()
    data = header(values, bits=12, Rows=values.shape[0] + 1)
    with pytest.raises(UnreadableImageError, match="truncated image: fewer bytes than Rows"):
        decode_dicom(written(data, values), WINDOWLESS)


def test_bombs_are_refused_before_they_are_unpacked():
    values = ramp()
    with pytest.raises(UnreadableImageError, match=r"^too large: 60000 x 60000"):
        decode_dicom(dicom(values, Rows=60000, Columns=60000), WINDOWLESS)
    frame = bytearray(files.lossless(values, 12))
    place = frame.index(b"\xff\xc3")
    frame[place + 5 : place + 9] = struct.pack(">HH", 60_000, 60_000)
    good = dicom(values, syntax=files.LOSSLESS_SV1)
    bomb = good.replace(encapsulate([files.lossless(values, 12)]), encapsulate([bytes(frame)]))
    assert bomb != good
    with pytest.raises(UnreadableImageError, match=r"^too large: 60000 x 60000"):
        decode_dicom(bomb, WINDOWLESS)
    with pytest.raises(UnreadableImageError, match="header and compressed frame differ in size"):
        decode_dicom(dicom(values, syntax=files.LOSSLESS_SV1, Rows=23), WINDOWLESS)


def test_a_deflated_file_that_unpacks_to_gigabytes_is_refused():
    start = dicom(ramp(), syntax=files.DEFLATED)
    meta = start[: 144 + int.from_bytes(start[140:144], "little")]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = b"".join(packer.compress(bytes(1 << 24)) for _ in range(18)) + packer.flush()
    assert len(body) < 1 << 20
    with pytest.raises(UnreadableImageError, match="too large: a deflated file"):
        decode_dicom(meta + body, WINDOWLESS)


def test_a_missing_decoder_is_named_with_its_transfer_syntax_and_the_extra(monkeypatch):
    data = dicom(ramp(), syntax=files.LOSSLESS_SV1)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(UnreadableImageError) as caught:
        decode_dicom(data, WINDOWLESS)
    assert str(caught.value).startswith(
        "missing decoder: JPEG lossless SV1 (1.2.840.10008.1.2.4.70)"
    )
    assert "lightning-rad[dicom]" in str(caught.value)

    def absent():
        raise UnreadableImageError(f"missing decoder: DICOM needs {package.EXTRA}")

    monkeypatch.setattr(package, "_reading", absent)
    with pytest.raises(UnreadableImageError, match=r"^missing decoder: DICOM needs pip install"):
        decode_image(data)


def test_nothing_that_a_header_says_of_a_patient_reaches_a_warning_or_an_error(recwarn):
    values = ramp()
    data = dicom(values, PatientName="Secret^Name", AccessionNumber="SECRET1")
    broken = data.replace(b"MONOCHROME2 ", b"SECRET NAME ")
    assert broken != data
    for bad in (broken, data[:300], data.replace(b"CR\x10\x00", b"QQ\x10\x00")):
        with pytest.raises(UnreadableImageError) as caught:
            decode_dicom(bad, DicomSettings())
        assert "secret" not in str(caught.value).lower()
        assert caught.value.__cause__ is None
    assert not recwarn.list
