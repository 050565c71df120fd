import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rad.sharding.fingerprint import (
    MIN_SET,
    NEAR,
    _thumbnails,
    digest_pixels,
    fingerprint,
    near_pairs,
)
from tests.sharding.phantoms import phantom


def bits(text):
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))


def distance(one, other):
    return int((bits(one) != bits(other)).sum())


def hashes(seed, count):
    """Fingerprints in clusters, so that many lie near the threshold on either side."""
    rng = np.random.default_rng(seed)
    centres = rng.random((3, 256)) < 0.5
    flips = rng.random((count, 256)) < rng.choice([0.01, 0.025, 0.05], (count, 1))
    return [np.packbits(centres[i % 3] ^ flips[i]).tobytes().hex() for i in range(count)]


@given(st.integers(0, 10**6), st.sampled_from([0, 3, NEAR]))
@settings(deadline=None, max_examples=20)
def test_banding_finds_exactly_the_pairs_that_comparing_all_finds(seed, threshold):
    left, right = hashes(seed, 40), hashes(seed, 30)[::-1]
    everything = [
        (i, j, distance(a, b))
        for i, a in enumerate(left)
        for j, b in enumerate(right)
        if distance(a, b) <= threshold
    ]
    assert near_pairs(left, right, threshold=threshold) == everything
    within = [(i, j, d) for i, j, d in near_pairs(left, left, threshold=threshold) if i < j]
    assert near_pairs(left, threshold=threshold) == within
    assert threshold < NEAR or len(everything) > 30


def test_blank_pictures_are_not_taken_for_one_another():
    blank = fingerprint(np.full((50, 60), 7, np.uint8))
    assert bits(blank).sum() < MIN_SET
    assert near_pairs([blank, blank]) == []
    assert near_pairs([]) == []


@pytest.mark.parametrize("quality", [40, 75, 95])
@pytest.mark.parametrize("side", [384, 256, 150])
def test_a_copy_re_encoded_and_resized_stays_near(quality, side):
    original = phantom("x", height=512, width=480)
    small = cv2.resize(original, (side, side), interpolation=cv2.INTER_LINEAR)
    copy = cv2.imdecode(cv2.imencode(".jpg", small, [1, quality])[1], cv2.IMREAD_UNCHANGED)
    assert digest_pixels(copy) != digest_pixels(original)
    assert distance(fingerprint(copy), fingerprint(original)) <= NEAR


def test_depth_and_window_do_not_matter_much_and_the_picture_does():
    deep = phantom("x", dtype=np.uint16, top=4095, height=200, width=200)
    eight = (deep >> 4).astype(np.uint8)
    assert distance(fingerprint(deep), fingerprint(eight)) <= NEAR
    others = [fingerprint(phantom(i, height=200, width=200)) for i in range(40)]
    assert min(distance(a, b) for a in others for b in others if a is not b) > 2 * NEAR


def test_the_digest_tells_shape_and_depth_apart():
    flat = np.zeros(12, np.uint8)
    digests = {
        digest_pixels(flat.reshape(3, 4)),
        digest_pixels(flat.reshape(4, 3)),
        digest_pixels(np.zeros((3, 2), np.uint16)),
    }
    assert len(digests) == 3
    view = phantom("x")[::2, ::2]
    assert digest_pixels(view) == digest_pixels(view.copy())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("height", "width"), [(17, 17), (136, 272), (523, 401), (90, 1033)])
def test_thumbnails_are_the_means_of_equal_cells(dtype, height, width):
    pixels = phantom("t", height=height, width=width, dtype=dtype)
    fine = np.kron(pixels.astype(np.float64), np.ones((8 * 17, 1)))  # cells of whole rows
    for thumbnail in _thumbnails(pixels):
        rows, columns = thumbnail.shape
        bands = fine.reshape(rows, -1, width).mean(axis=1)
        exact = np.repeat(bands, columns, axis=1).reshape(rows, columns, width).mean(axis=2)
        assert thumbnail == pytest.approx(exact, rel=1e-9)


def test_fingerprints_are_those_of_shards_that_were_built_before():
    pixels = phantom("golden", height=523, width=401)
    grey = pixels.astype(np.float32)
    wide, tall = (cv2.resize(grey, s, interpolation=cv2.INTER_AREA) for s in ((17, 8), (8, 17)))
    across = np.diff(wide, axis=1) > np.ptp(wide) / 255
    down = np.diff(tall, axis=0) > np.ptp(tall) / 255
    before = np.packbits(np.concatenate([across.ravel(), down.ravel()])).tobytes().hex()
    assert fingerprint(pixels) == before
