"""Maps of attention by image: recorded, predicted, either, or another patient's; damage is told."""

from pathlib import Path
from typing import Any

import numpy as np

from lightning_rad.data.reader import Reader
from lightning_rad.data.saliency import SaliencyMaps
from lightning_rad.modalities.gaze import heat_map, packed
from tests.data.evidence import edited, patients_of
from tests.data.reports import images_of, source_of, study_of
from tests.data.spots import (
    BOTH,
    PREDICTED,
    RECORDED,
    SHUFFLED,
    SIDE,
    everything,
    maps_of,
    of_spots,
    spot,
)


def test_a_recorded_map_is_that_of_the_images_own_fixations(tiny_shards: Path) -> None:
    source = source_of(tiny_shards)
    for image, found in zip(
        everything(tiny_shards),
        maps_of(tiny_shards).of(everything(tiny_shards), RECORDED),
        strict=True,
    ):
        entry = source.entry(image)
        want = heat_map(
            source.fixations(image), (entry["height"], entry["width"]), side=SIDE, spread=0.03
        )
        assert found is not None
        assert found.shape == (SIDE, SIDE)
        np.testing.assert_array_equal(found, want)


def test_a_gaussian_is_round_in_pixels_of_a_picture_that_is_not_square(
    tiny_shards: Path, tmp_path: Path
) -> None:
    def wide(_: int, entry: dict[str, Any]) -> dict[str, Any]:
        return entry | {"height": 100, "width": 300}

    shards = edited(tiny_shards, tmp_path / "out", entry=wide)
    fixations = source_of(shards).fixations(3)
    [found] = maps_of(shards).of([3], RECORDED)
    want = heat_map(fixations, (100, 300), side=SIDE, spread=0.03)
    np.testing.assert_array_equal(found, want)
    assert not np.allclose(want, heat_map(fixations, (300, 100), side=SIDE, spread=0.03))


def test_each_source_of_maps_gives_its_own(spotted: Path) -> None:
    maps, first, last = maps_of(spotted), images_of(source_of(spotted), 0)[0], 30
    assert study_of(source_of(spotted), last) != 0
    none, recorded = maps.of([first, last], RECORDED)
    assert none is None
    assert recorded is not None
    for image, found in zip((first, last), maps.of([first, last], PREDICTED), strict=True):
        np.testing.assert_allclose(found, spot(image))
    either = maps.of([first, last], BOTH)
    np.testing.assert_allclose(either[0], spot(first))
    np.testing.assert_array_equal(either[1], recorded)


def test_images_without_a_predicted_map_have_none(tiny_shards: Path) -> None:
    assert maps_of(tiny_shards).of([0, 1, 2], PREDICTED) == [None] * 3


def test_a_black_map_is_none(tiny_shards: Path, tmp_path: Path) -> None:
    def black(_: int, entry: dict[str, Any]) -> dict[str, Any]:
        return entry | {"saliency": packed(np.zeros((8, 8)))}

    shards = edited(tiny_shards, tmp_path / "black", entry=black)
    assert maps_of(shards).of([0, 5], PREDICTED) == [None, None]


def owner(map_SS: np.ndarray | None) -> int:
    assert map_SS is not None
    return int(map_SS.argmax())


def test_a_shuffled_map_is_another_patients_and_always_the_same(
    tiny_shards: Path, tmp_path: Path
) -> None:
    """Without gaze at all, so that predicted maps, which tell their image, are exchanged."""
    source = source_of(tiny_shards)
    nothing = {(study, "gaze"): b"" for study in range(len(source.index.studies))}
    shards = edited(tiny_shards, tmp_path / "out", entry=of_spots, members=nothing)
    images = everything(tiny_shards)
    assert len(images) <= 256
    found = [owner(m) for m in maps_of(shards).of(images, SHUFFLED)]
    mine, theirs = patients_of(source, images), patients_of(source, found)
    assert all(a != b for a, b in zip(mine, theirs, strict=True))
    assert len(set(found)) > len(images) / 3
    again = [owner(m) for m in maps_of(shards).of(images[::-1], SHUFFLED)]
    assert again[::-1] == found


def test_shuffled_maps_of_a_mixture_stay_in_their_set(
    tiny_shards: Path, other_shards: Path, tmp_path: Path
) -> None:
    """A knee's picture gets no chest's map; numbers of images count on through the sets."""
    plain, spots = source_of(tiny_shards), source_of(other_shards)
    nothing = {(study, "gaze"): b"" for study in range(len(spots.index.studies))}
    shards = edited(other_shards, tmp_path / "out", entry=of_spots, members=nothing)
    first = len(plain.index.images)
    images = [first + image for image in everything(other_shards)]
    found = [owner(m) for m in maps_of(tiny_shards, shards).of(images, SHUFFLED)]
    assert max(found) < len(spots.index.images)
    recorded = maps_of(tiny_shards, shards).of([0, 1, 2], SHUFFLED)
    of_first = maps_of(tiny_shards).of(everything(tiny_shards), RECORDED)
    for map_SS in recorded:
        assert any(np.array_equal(map_SS, other) for other in of_first)


def test_only_an_image_that_has_a_map_gets_anothers(spotted: Path, tiny_shards: Path) -> None:
    """So that the control has as many maps as what it controls; those of recorded gaze first."""
    source = source_of(tiny_shards)
    gone = {(study, "gaze"): b"" for study in range(0, len(source.index.studies), 2)}
    half = edited(tiny_shards, spotted.parent / "half", members=gone)
    images = everything(tiny_shards)
    own = maps_of(half).of(images, BOTH)
    other = maps_of(half).of(images, SHUFFLED)
    assert [m is None for m in own] == [m is None for m in other]
    assert 0 < sum(m is None for m in own) < len(images)


def test_recorded_maps_are_given_to_others_before_predicted_ones(spotted: Path) -> None:
    studies = range(0, len(source_of(spotted).index.studies), 2)
    half = edited(spotted, spotted.parent / "fewer", members={(s, "gaze"): b"" for s in studies})
    found = maps_of(half).of(everything(spotted), SHUFFLED)
    assert {m.shape for m in found if m is not None} == {(SIDE, SIDE)}  # predicted ones have 16


def test_one_patient_alone_has_no_other(tiny_shards: Path) -> None:
    source = source_of(tiny_shards)
    source.index.studies["patient"] = 7
    assert SaliencyMaps(Reader([source])).of([0, 9], SHUFFLED) == [None, None]


def test_where_patients_are_unknown_the_other_map_is_of_another_study(
    tiny_shards: Path, tmp_path: Path
) -> None:
    studies = range(len(source_of(tiny_shards).index.studies))
    nothing = {(study, "gaze"): b"" for study in studies}
    source = source_of(edited(tiny_shards, tmp_path / "out", entry=of_spots, members=nothing))
    source.index.studies["patient"] = 0
    images = everything(tiny_shards)
    found = [owner(m) for m in SaliencyMaps(Reader([source])).of(images, SHUFFLED)]
    study = source.index.images["study"]
    assert (study[images] != study[found]).all()
