"""16-bit PNG and TIFF keep their range: the bits that the file records, never the largest value."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from lightning_rad.modalities.radiograph import UnreadableImageError, decode_image

VALUES = (np.arange(96, dtype=np.uint16) * 43).reshape(8, 12)  # 12 bits, all of them used


def png(pixels, significant=None):
    data = cv2.imencode(".png", pixels)[1].tobytes()
    if significant is None:
        return data
    body = b"sBIT" + bytes([significant])
    return data[:33] + struct.pack(">I", 1) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]


def tiff(payload, *, bits, white_is_zero=False, order="<", size=(8, 12)):
    tags = {256: size[1], 257: size[0], 258: bits, 259: 1, 262: 0 if white_is_zero else 1}
    tags |= {273: 8, 277: 1, 278: size[0], 279: len(payload)}
    head = b"II*\0" if order == "<" else b"MM\0*"
    out = head + struct.pack(order + "I", 8 + len(payload)) + payload
    out += struct.pack(order + "H", len(tags))
    for tag, value in tags.items():
        out += struct.pack(order + "HHII", tag, 4, 1, value)
    return out + bytes(4)


def packed(values, bits):
    text = "".join(f"{v:0{bits}b}" for v in values.ravel())
    return int(text, 2).to_bytes(len(text) // 8, "big")


def test_a_dark_16_bit_file_is_not_taken_for_one_of_12_bits():
    stored = decode_image(png(VALUES))
    assert (stored.bits, int(stored.pixels.max())) == (16, 4085)
    assert decode_image(png(VALUES), bits=12).bits == 12  # said by the recipe's table


@pytest.mark.parametrize(
    "scaled",
    [
        VALUES << 4,
        (VALUES << 4) | (VALUES >> 8),
        np.floor(VALUES * (65535 / 4095) + 0.5).astype(np.uint16),
        VALUES,
    ],
    ids=["shifted", "replicated", "linear", "not scaled"],
)
def test_the_significant_bits_of_a_png_are_taken_out_however_it_was_scaled(scaled):
    stored = decode_image(png(scaled, 12), bits=16)
    assert stored.bits == 12
    assert np.array_equal(stored.pixels, VALUES)


def test_a_record_that_the_pixels_contradict_does_not_count():
    noise = np.random.default_rng(0).integers(0, 65536, (8, 12), np.uint16)
    stored = decode_image(png(noise, 12))
    assert stored.bits == 16
    assert np.array_equal(stored.pixels, noise)


@pytest.mark.parametrize("white_is_zero", [False, True])
def test_tiff_of_12_bits_is_12_bits(white_is_zero):
    stored = decode_image(tiff(packed(VALUES, 12), bits=12, white_is_zero=white_is_zero))
    assert stored.bits == 12
    assert np.array_equal(stored.pixels, 4095 - VALUES if white_is_zero else VALUES)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_whose_white_is_zero_comes_out_bright_where_dense(order, bits):
    values = VALUES if bits == 16 else (VALUES // 16).astype(np.uint8)
    body = values.astype(f"{order}u{bits // 8}").tobytes()
    stored = decode_image(tiff(body, bits=bits, white_is_zero=True, order=order))
    assert stored.bits == bits
    assert np.array_equal(stored.pixels, (1 << bits) - 1 - values)
    known = decode_image(tiff(body, bits=bits, white_is_zero=True, order=order), bits=12)
    assert known.bits == (12 if bits == 16 else 8)
    assert int(known.pixels.max()) < 1 << known.bits


def test_a_tiff_that_claims_a_gigantic_size_is_refused():
    with pytest.raises(UnreadableImageError, match=r"^too large: 60000 x 60000"):
        decode_image(tiff(bytes(96), bits=8, size=(60000, 60000)))
