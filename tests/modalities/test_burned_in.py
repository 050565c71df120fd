"""Text near borders is found, markers and plain pictures are not taken for it."""

import cv2
import numpy as np
import pytest

from lightning_rad.modalities.burned_in import text_regions
from tests.sharding.phantoms import phantom

TEXTS = ("DOE JANE 1956", "12/03/2019 10:30", "ST. MARY HOSPITAL")


def picture(text, place, *, side=600, level=255, bits=8, size=0.8):
    pixels = phantom("plain", height=side, width=side) // 3 + (40 if level else 120)
    where = (int(place[0] * side), int(place[1] * side))
    cv2.putText(pixels, text, where, cv2.FONT_HERSHEY_SIMPLEX, size * side / 600, level, 2)
    return pixels if bits == 8 else pixels.astype(np.uint16) << (bits - 8)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("place", [(0.03, 0.06), (0.4, 0.97)])
@pytest.mark.parametrize("how", [{}, {"level": 0}, {"side": 2400}, {"bits": 12}, {"bits": 16}])
def test_a_line_at_the_border_is_found_where_it_stands(text, place, how):
    regions = text_regions(picture(text, place, **how), how.get("bits", 8))
    assert regions
    assert abs(min(r.x for r in regions) - place[0]) < 0.05
    assert all(abs(r.y + r.h - place[1]) < 0.03 for r in regions)


@pytest.mark.parametrize("marker", ["L", "R", "AP", "R JD"])
def test_markers_of_side_are_not_reported(marker):
    assert text_regions(picture(marker, (0.05, 0.1))) == []


@pytest.mark.parametrize(
    "pixels", [phantom(1, height=500, width=400), np.zeros((64, 64), np.uint8)]
)
def test_a_plain_picture_bears_no_text(pixels):
    assert text_regions(pixels) == []


def test_text_in_the_middle_is_not_at_a_border():
    assert text_regions(picture("ABCDEF", (0.4, 0.5))) == []


def test_a_ruler_of_equal_ticks_is_no_text():
    pixels = np.full((600, 600), 40, np.uint8)
    for x in range(30, 400, 12):
        pixels[20:40, x : x + 3] = 255
        pixels[38:40, x : x + 7] = 255
    assert text_regions(pixels) == []
