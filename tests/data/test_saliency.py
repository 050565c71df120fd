"""Maps of attention by image: recorded, predicted, either, or another patient's; damage is told."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_rad.data.reader import Reader
from lightning_rad.data.saliency import SaliencyMaps
from lightning_rad.modalities.gaze import Saliency, heat_map, packed
from tests.data.evidence import edited, patients_of
from tests.data.reports import images_of, source_of, study_of

SIDE = 24
RECORDED = Saliency("recorded", side=SIDE)
PREDICTED = Saliency("predicted", side=SIDE)
BOTH = Saliency("both", side=SIDE)
SHUFFLED = Saliency("shuffled", side=SIDE)


def maps_of(*shards: Path) -> SaliencyMaps:
    return SaliencyMaps(Reader([source_of(folder) for folder in shards]))


def everything(shards: Path) -> list[int]:
    return list(range(len(source_of(shards).index.images)))


def spot(image: int) -> np.ndarray:
    """A map that tells which image it is of."""
    map_SS = np.zeros((16, 16))
    map_SS[image // 16 % 16, image % 16] = 1.0
    return map_SS


def of_spots(image: int, entry: dict[str, Any]) -> dict[str, Any]:
    return entry | {"saliency": packed(spot(image))}


@pytest.fixture(scope="module")
def spotted(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every image has a predicted map; the gaze of study 0 is gone."""
    out = tmp_path_factory.mktemp("spotted") / "out"
    return edited(tiny_shards, out, entry=of_spots, members={(0, "gaze"): b""})


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


def test_one_patient_alone_has_no_other(tiny_shards: Path) -> None:
    source = source_of(tiny_shards)
    source.index.studies["patient"] = 7
    assert SaliencyMaps(Reader([source])).of([0, 9], SHUFFLED) == [None, None]


# --- damage


def broken(image: int, entry: dict[str, Any]) -> dict[str, Any]:
    texts = ["!", packed(np.ones((8, 8)))[:-8], 5, ["x"], "", packed(np.ones((8, 8)))]
    return entry | {"saliency": texts[image] if image < 5 else texts[5]}


def test_a_damaged_predicted_map_is_none_counted_and_told_once(
    tiny_shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shards = edited(tiny_shards, tmp_path / "out", entry=broken)
    maps = maps_of(shards)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            found = maps.of([0, 1, 2, 3, 4, 5], PREDICTED)
    assert [m is None for m in found] == [True] * 5 + [False]
    assert maps.damaged == 15
    source = source_of(shards)
    names = {source.name(study_of(source, image)) for image in range(5)}
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == len(names)
    assert all(any(name in line for line in told) for name in names)


DAMAGED: dict[str, Callable[[int], bytes]] = {
    "torn": lambda _: b'{"00": [[0.5, ',
    "no object": lambda _: b"[]",
    "no triples": lambda n: json.dumps({f"{i:02d}": [[0.5, 0.5]] for i in range(n)}).encode(),
    "words": lambda n: json.dumps({f"{i:02d}": [["a", 0.5, 1]] for i in range(n)}).encode(),
    "deep": lambda _: b"[" * 100_000,
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_gaze_is_none_counted_and_told_once(
    spotted: Path, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a predicted map may stand in for it, it does."""
    images = images_of(source_of(spotted), 3)
    members = {(3, "gaze"): DAMAGED[kind](len(images))}
    maps = maps_of(edited(spotted, tmp_path / "out", members=members))
    with caplog.at_level(logging.WARNING):
        assert maps.of(images, RECORDED) == [None] * len(images)
        for image, found in zip(images, maps.of(images, BOTH), strict=True):
            np.testing.assert_allclose(found, spot(image))
    assert maps.damaged == 2 * len(images)
    assert len(caplog.records) == 1
    assert "key " in caplog.text


def test_fixations_that_are_all_outside_are_no_map_and_no_damage(
    tiny_shards: Path, tmp_path: Path
) -> None:
    images = images_of(source_of(tiny_shards), 2)
    outside = {f"{i:02d}": [[1.05, 0.5, 1.0], [0.5, 0.5, 0.0]] for i in range(len(images))}
    members = {(2, "gaze"): json.dumps(outside).encode()}
    maps = maps_of(edited(tiny_shards, tmp_path / "out", members=members))
    assert maps.of(images, BOTH) == [None] * len(images)
    assert maps.damaged == 0


@pytest.mark.parametrize("size", [None, (32, None), ("32", "32"), (0, 32), (32, -1), (1.5, 32)])
def test_a_record_that_does_not_say_the_size_is_no_damage(
    tiny_shards: Path, tmp_path: Path, size: tuple[Any, Any] | None
) -> None:
    """Of shards of other software; the size is then that of the decoded image."""

    def sizeless(_: int, entry: dict[str, Any]) -> dict[str, Any]:
        said = dict(zip(("height", "width"), size or (), strict=False))
        return {k: v for k, v in entry.items() if k not in ("height", "width")} | said

    maps = maps_of(edited(tiny_shards, tmp_path / "out", entry=sizeless))
    want = maps_of(tiny_shards).of([0, 7], RECORDED)
    for found, right in zip(maps.of([0, 7], RECORDED), want, strict=True):
        np.testing.assert_array_equal(found, right)
    assert maps.damaged == 0
