import struct
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rad.modalities.radiograph import UnreadableImageError, decode_image, read_image


def picture(height=61, width=83, *, dtype=np.uint8, seed=0):
    coarse = np.random.default_rng(seed).random((6, 7)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    return (smooth * np.iinfo(dtype).max).astype(dtype)


def encoded(pixels, suffix):
    return cv2.imencode(suffix, pixels)[1].tobytes()


FILES = {suffix: encoded(picture(), suffix) for suffix in (".jpg", ".png", ".tif", ".bmp")}


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lossless_files_give_their_very_pixels(suffix, dtype):
    pixels = picture(dtype=dtype)
    decoded = decode_image(encoded(pixels, suffix)).pixels
    assert decoded.dtype == dtype
    assert np.array_equal(decoded, pixels)


def test_a_grey_jpeg_equals_another_decoder_within_one_level():
    other = cv2.imdecode(np.frombuffer(FILES[".jpg"], np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.abs(decode_image(FILES[".jpg"]).pixels.astype(int) - other).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_a_colour_file_that_is_grey_is_accepted(suffix):
    grey = picture()
    decoded = decode_image(encoded(np.dstack([grey] * 3), suffix)).pixels
    assert decoded.shape == grey.shape
    assert np.abs(decoded.astype(int) - grey).max() <= (12 if suffix == ".jpg" else 0)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_colour_picture_is_refused_and_a_coloured_arrow_is_not(suffix):
    grey = np.dstack([picture()] * 3)
    arrow = grey.copy()
    arrow[10:14, 20:40] = (0, 0, 255)
    assert decode_image(encoded(arrow, suffix)).pixels.ndim == 2
    photo = grey.copy()
    photo[:, :40] = (20, 60, 200)
    with pytest.raises(UnreadableImageError, match="wrong channels: a colour picture"):
        decode_image(encoded(photo, suffix))


def test_an_opaque_alpha_is_dropped_and_a_transparent_one_refused():
    grey = picture()
    alpha = np.full_like(grey, 255)
    opaque = decode_image(encoded(np.dstack([grey] * 3 + [alpha]), ".png")).pixels
    assert np.array_equal(opaque, grey)
    alpha[3, 3] = 0
    with pytest.raises(UnreadableImageError, match="wrong channels: a transparent picture"):
        decode_image(encoded(np.dstack([grey] * 3 + [alpha]), ".png"))


@given(st.sampled_from(sorted(FILES)), st.floats(0, 1, exclude_max=True))
@settings(deadline=None, max_examples=60)
def test_a_file_cut_anywhere_is_refused(suffix, fraction):
    data = FILES[suffix]
    # The last bytes of a PNG or TIFF may be dispensable; a tenth never is.
    with pytest.raises(UnreadableImageError):
        decode_image(data[: int(len(data) * min(fraction, 0.9))])


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"])
)
@settings(deadline=None, max_examples=60)
def test_junk_is_refused_whatever_it_pretends_to_be(junk, signature):
    with pytest.raises(UnreadableImageError):
        decode_image(signature + junk)


def test_a_jpeg_without_its_last_rows_is_called_truncated():
    with pytest.raises(UnreadableImageError, match="truncated image"):
        decode_image(FILES[".jpg"][:-40])


def test_the_kinds_of_fault_are_told_apart(tmp_path):
    with pytest.raises(UnreadableImageError, match=r"^missing file$"):
        read_image(tmp_path / "none.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(UnreadableImageError, match=r"^empty file$"):
        read_image(tmp_path / "empty.png")
    with pytest.raises(UnreadableImageError, match=r"^unreadable file"):
        read_image(tmp_path)
    with pytest.raises(UnreadableImageError, match=r"^not an image"):
        decode_image(b"<html>404</html>")
    with pytest.raises(UnreadableImageError, match=r"^wrong depth: float32"):
        decode_image(encoded(picture().astype(np.float32), ".tif"))


def test_a_bomb_is_refused_before_it_is_unpacked():
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header
    chunk += struct.pack(">I", zlib.crc32(b"IHDR" + header))
    with pytest.raises(UnreadableImageError, match="too large: 60000 x 60000"):
        decode_image(b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IEND\xae\x42\x60\x82")
    jpeg = bytearray(simplejpeg.encode_jpeg(picture()[:, :, None], 90, "GRAY", "Gray"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    with pytest.raises(UnreadableImageError, match="too large"):
        decode_image(bytes(jpeg))
