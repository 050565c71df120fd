"""Parts of pictures that may say something: none that is built has one."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from lightning_rad.sharding.privacy.pictures import picture_parts
from tests.sharding.phantoms import phantom

WHO = b"Doe^Jane"


def encoded(suffix):
    return cv2.imencode(f".{suffix}", phantom(1))[1].tobytes()


def chunk(kind, data):
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def commented(data):
    return data[:2] + b"\xff\xfe" + struct.pack(">H", 2 + len(WHO)) + WHO + data[2:]


def with_exif(data):
    body = b"Exif\0\0" + WHO
    return data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body + data[2:]


@pytest.mark.parametrize("suffix", ["jpg", "png", "pgm"])
def test_a_plain_picture_says_nothing_and_no_byte_of_its_pixels_is_passed_over(suffix):
    data = encoded(suffix)
    said, code, odd = picture_parts(data)
    assert (said.strip(), odd) == ("", "")
    assert len(code) > 0.8 * len(data) - 80


@pytest.mark.parametrize(
    "data",
    [
        commented(encoded("jpg")),
        with_exif(encoded("jpg")),
        encoded("jpg") + WHO,
        encoded("png") + WHO,
        encoded("pgm") + WHO,
        encoded("png")[:33] + chunk(b"tEXt", b"Author\0" + WHO) + encoded("png")[33:],
    ],
)
def test_what_is_said_beside_the_pixels_is_read_and_odd(data):
    assert cv2.imdecode(np.frombuffer(data, np.uint8), 0) is not None
    said, _, odd = picture_parts(data)
    assert "Doe^Jane" in said
    assert odd
