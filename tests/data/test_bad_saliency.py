"""Maps and gaze that are damaged count as none, are told with their number, and stop nothing."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_rad.modalities.gaze import packed
from tests.data.evidence import edited
from tests.data.reports import images_of, source_of, study_of
from tests.data.spots import (
    BOTH,
    PREDICTED,
    RECORDED,
    SHUFFLED,
    maps_of,
    spot,
)


def broken(image: int, entry: dict[str, Any]) -> dict[str, Any]:
    texts = ["!", packed(np.ones((8, 8)))[:-8], 5, ["x"], "", packed(np.ones((8, 8)))]
    return entry | {"saliency": texts[image] if image < 5 else texts[5]}


def test_a_damaged_predicted_map_is_none_and_only_the_first_study_is_told(
    tiny_shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shards = edited(tiny_shards, tmp_path / "out", entry=broken)
    maps = maps_of(shards)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            found = maps.of([0, 1, 2, 3, 4, 5], PREDICTED)
    assert [m is None for m in found] == [True] * 5 + [False]
    source = source_of(shards)
    names = {source.name(study_of(source, image)) for image in range(5)}
    (told,) = caplog.messages
    assert 2 <= len(names) < 10
    assert source.name(study_of(source, 0)) in told


def test_a_set_that_is_damaged_throughout_is_told_by_its_count(
    tiny_shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The 1st and the 10th study, each once, however often they are read; another kind apart."""
    shards = edited(tiny_shards, tmp_path / "out", entry=lambda _, said: said | {"saliency": "!"})
    source = source_of(shards)
    maps, images = maps_of(shards), np.arange(len(source.index.images))
    last = np.flatnonzero(source.index.images["study"] == 9)[-1]
    assert 10 < len(source.index.studies) < 100
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            maps.of(images[: last + 1], PREDICTED)
        maps.of(images, PREDICTED)
    first, tenth = caplog.messages
    assert source.name(0) in first
    assert tenth.startswith("images of 10 studies so far count as without gaze (`lightning-rad sha")
    assert source.name(9) in tenth


DAMAGED: dict[str, Callable[[int], bytes]] = {
    "torn": lambda _: b'{"00": [[0.5, ',
    "no object": lambda _: b"[]",
    "no triples": lambda n: json.dumps({f"{i:02d}": [[0.5, 0.5]] for i in range(n)}).encode(),
    "words": lambda n: json.dumps({f"{i:02d}": [["a", 0.5, 1]] for i in range(n)}).encode(),
    "deep": lambda _: b"[" * 100_000,
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_gaze_is_none_and_told_once(
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
    assert len(caplog.records) == 1
    assert "key " in caplog.text


@pytest.mark.parametrize("file", ["\u00b2.jpg", "9" * 5000 + ".jpg"])
def test_a_record_whose_names_are_no_numbers_is_told_and_stops_nothing(
    tiny_shards: Path, tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    def strange(image: int, entry: dict[str, Any]) -> dict[str, Any]:
        return entry | {"file": file} if image == 0 else entry

    maps = maps_of(edited(tiny_shards, tmp_path / "out", entry=strange))
    with caplog.at_level(logging.WARNING):
        for saliency in (RECORDED, PREDICTED, SHUFFLED):
            assert maps.of([0], saliency) == [None]
    assert [line for line in caplog.messages if "malformed JSON record" in line]


def test_fixations_that_are_all_outside_are_no_map_and_no_damage(
    tiny_shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = images_of(source_of(tiny_shards), 2)
    outside = {f"{i:02d}": [[1.05, 0.5, 1.0], [0.5, 0.5, 0.0]] for i in range(len(images))}
    members = {(2, "gaze"): json.dumps(outside).encode()}
    maps = maps_of(edited(tiny_shards, tmp_path / "out", members=members))
    assert maps.of(images, BOTH) == [None] * len(images)
    assert not caplog.messages


@pytest.mark.parametrize(
    "size",
    [None, (32, None), ("32", "32"), (0, 32), (32, -1), (1.5, 32), (10**400, 32)],
)
def test_a_record_that_does_not_say_the_size_is_no_damage(
    tiny_shards: Path,
    tmp_path: Path,
    size: tuple[Any, Any] | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of shards of other software; the size is then that of the decoded image."""

    def sizeless(_: int, entry: dict[str, Any]) -> dict[str, Any]:
        said = dict(zip(("height", "width"), size or (), strict=False))
        return {k: v for k, v in entry.items() if k not in ("height", "width")} | said

    maps = maps_of(edited(tiny_shards, tmp_path / "out", entry=sizeless))
    want = maps_of(tiny_shards).of([0, 7], RECORDED)
    for found, right in zip(maps.of([0, 7], RECORDED), want, strict=True):
        np.testing.assert_array_equal(found, right)
    assert not caplog.messages
