import struct
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rad.data.decode import DecodeError, decode


def picture(height=90, width=77, channels=1):
    rng = np.random.default_rng(height * width)
    noise = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2).reshape(noise.shape)


def encoded(pixels, suffix, *flags):
    return cv2.imencode(f".{suffix}", pixels, flags)[1].tobytes()


def with_png_size(png, height, width):
    body = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + body + struct.pack(">I", zlib.crc32(body)) + png[33:]


def test_a_png_comes_back_exactly():
    pixels = picture()[:, :, 0]
    got = decode(encoded(pixels, "png"), "png")
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, pixels)


def pgm(pixels):
    return b"P5\n%d %d\n255\n" % pixels.shape[::-1] + pixels.tobytes()


@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_a_pgm_is_its_pixels_and_no_copy_of_them(kind):
    pixels = picture()[:, :, 0]
    data = kind(pgm(pixels))
    got = decode(data, "pgm")
    np.testing.assert_array_equal(got, pixels)
    assert np.shares_memory(got, np.frombuffer(data, np.uint8))
    assert not got.flags.writeable


def test_a_pgm_of_another_writer_is_read_alike():
    pixels = picture()[:, :, 0]
    np.testing.assert_array_equal(decode(encoded(pixels, "pgm"), "PGM"), pixels)


@pytest.mark.parametrize(
    "data",
    [
        pgm(np.zeros((4, 6), np.uint8))[:-1],
        pgm(np.zeros((4, 6), np.uint8)) + b"\0",
        pgm(np.zeros((4, 0), np.uint8)),
        b"P2\n2 1\n255\n0 0",
        b"P6\n1 1\n255\n\0\0\0",
        b"P5\n1 1\n65535\n\0\0",
        b"P5\n# a comment\n1 1\n255\n\0",
        b"P5\n999999999 999999999\n255\n",
        b"P5",
        b"",
    ],
)
def test_a_pgm_that_is_not_whole_or_not_of_8_bits_is_an_error(data):
    with pytest.raises(DecodeError):
        decode(data, "pgm")


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "JPG"])
@pytest.mark.parametrize("flags", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)])
def test_a_jpeg_equals_another_decoder_within_two_greys(suffix, flags):
    data = encoded(picture(), "jpg", *flags)
    got = decode(data, suffix)
    other = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert (got.dtype, got.shape) == (np.uint8, (90, 77))
    assert np.abs(got.astype(int) - other).max() <= 2


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_colour_becomes_luma(suffix):
    grey = picture()
    colour = np.concatenate([grey, grey, grey], 2)
    got = decode(encoded(colour, suffix, cv2.IMWRITE_JPEG_QUALITY, 100), suffix)
    assert np.abs(got.astype(int) - grey[:, :, 0]).max() <= 2
    blue_green_red = np.zeros((16, 16, 3), np.uint8)
    blue_green_red[:, :, 1] = 200
    got = decode(encoded(blue_green_red, suffix), suffix)
    assert np.abs(got.astype(int) - 0.587 * 200).max() <= 2


def test_alpha_is_dropped():
    pixels = np.concatenate([picture(channels=1)] * 3 + [np.zeros((90, 77, 1), np.uint8)], 2)
    assert np.abs(decode(encoded(pixels, "png"), "png").astype(int) - pixels[:, :, 0]).max() <= 1


def test_all_sixteen_bits_of_deep_pngs_become_eight():
    deep = np.linspace(0, 65535, 4096).round().astype(np.uint16).reshape(64, 64)
    got = decode(encoded(deep, "png"), "png")
    assert got.dtype == np.uint8
    np.testing.assert_allclose(got, deep * (255.0 / 65535), atol=0.5 + 1e-3)
    assert got.min() == 0
    assert got.max() == 255


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@settings(deadline=None, max_examples=60)
@given(share=st.floats(0, 1, exclude_max=True))
def test_every_truncation_is_an_error(suffix, share):
    data = encoded(picture(), suffix)
    with pytest.raises(DecodeError, match="not a readable"):
        decode(data[: int(len(data) * share)], suffix)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("missing", [1, 2, 4, 11, 12, 13])
def test_a_few_missing_bytes_are_an_error(suffix, missing):
    with pytest.raises(DecodeError, match="not a readable"):
        decode(encoded(picture(), suffix)[:-missing], suffix)


@settings(deadline=None, max_examples=80)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_every_flipped_bit_of_a_png_is_an_error(place, bit):
    data = bytearray(encoded(picture(), "png"))
    data[int(place * len(data))] ^= 1 << bit
    with pytest.raises(DecodeError):
        decode(bytes(data), "png")


@settings(deadline=None, max_examples=80)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_of_a_jpeg_gives_an_image_or_a_decode_error(place, bit):
    data = bytearray(encoded(picture(), "jpg"))
    data[int(place * len(data))] ^= 1 << bit
    try:
        got = decode(bytes(data), "jpg")
    except DecodeError:
        return
    assert got.dtype == np.uint8
    assert got.ndim == 2


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@settings(deadline=None, max_examples=50)
@given(data=st.binary(max_size=200))
def test_noise_is_an_error(suffix, data):
    with pytest.raises(DecodeError, match="not a readable"):
        decode(data, suffix)


def test_a_png_whose_checksums_hold_but_whose_stream_is_bad_is_an_error(capfd):
    data = encoded(picture(), "png")
    start = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[start - 4 : start])
    body = b"IDAT" + b"\x00" * length
    bad = data[:start] + body + struct.pack(">I", zlib.crc32(body)) + data[start + 8 + length :]
    with pytest.raises(DecodeError, match="damaged"):
        decode(bad, "png")


@pytest.mark.parametrize("size", [(20000, 1), (1, 20000), (16384, 16384), (2**31, 2**31), (0, 9)])
def test_sizes_beyond_reason_are_refused_from_the_header_alone(size):
    with pytest.raises(DecodeError, match="accepted: 1 to 16384"):
        decode(with_png_size(encoded(picture(), "png"), *size), "png")
    if 0 < max(size) < 2**16 and 0 not in size:
        jpeg = bytearray(encoded(picture(), "jpg"))
        frame = jpeg.index(b"\xff\xc0") + 5
        jpeg[frame : frame + 4] = struct.pack(">HH", *size)
        with pytest.raises(DecodeError, match="accepted: 1 to 16384"):
            decode(bytes(jpeg), "jpg")


def test_print_colours_are_refused():
    pixels = np.repeat(picture(), 4, axis=2)
    data = simplejpeg.encode_jpeg(pixels, colorspace="CMYK", colorsubsampling="444")
    with pytest.raises(DecodeError, match="YCCK"):
        decode(data, "jpg")


def test_content_must_match_the_suffix():
    with pytest.raises(DecodeError, match="JPEG"):
        decode(encoded(picture(), "png"), "jpg")
    with pytest.raises(DecodeError, match="PNG"):
        decode(encoded(picture(), "jpg"), "png")


@pytest.mark.parametrize("suffix", ["gif", "", "tiff"])
def test_what_is_not_accepted_is_named(suffix):
    with pytest.raises(DecodeError, match="accepted"):
        decode(encoded(picture(), "png"), suffix)
