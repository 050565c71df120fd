"""Gaze beside views: of the image that is shown, where the view shows it, of whoever has some."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_rad.data.datamodule import RadiographData
from lightning_rad.data.settings import Evaluation, Loading, Shuffle
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.data.views.whole_image import WholeImage
from lightning_rad.manifest import load_manifest
from lightning_rad.modalities.evidence import FindingReading, GazeReading
from lightning_rad.modalities.gaze import Saliency, heat_map, packed
from tests.data.evidence import batches_of, bits, data_of, edited, looked_of, pixels_of
from tests.data.reports import reading_of, source_of

GAZE = GazeReading(Saliency("recorded", side=32, spread=0.02))
SIDES = (240, 300)
SPOT = (0.35, 0.6)
"""x, y of the one fixation, in fractions."""

Member = dict[tuple[int, str], bytes]


def said(images: int, fixations: Any) -> bytes:
    return json.dumps({f"{place:02d}": fixations for place in range(images)}).encode()


def gaze_of(shards: Path, fixations: Any) -> Member:
    """The same fixations on every image of every study."""
    counts = np.bincount(source_of(shards).index.images["study"])
    return {(study, "gaze"): said(int(n), fixations) for study, n in enumerate(counts)}


def dotted(_: int) -> np.ndarray:
    picture = np.zeros(SIDES, np.uint8)
    x, y = round(SPOT[0] * SIDES[1]), round(SPOT[1] * SIDES[0])
    picture[y - 6 : y + 6, x - 6 : x + 6] = 255
    return picture


def sized(_: int, entry: dict[str, Any]) -> dict[str, Any]:
    return entry | {"height": SIDES[0], "width": SIDES[1]}


@pytest.mark.parametrize("render", ["cpu", "device"])
def test_map_and_fixations_lie_on_what_the_view_shows_of_them(
    tiny_shards: Path, tmp_path: Path, render: Any
) -> None:
    """A bright dot that was looked at, in crops that are turned, mirrored and reduced."""
    looked = gaze_of(tiny_shards, [[*SPOT, 0.5], [1.2, 0.5, 3.0], [0.1, -0.1, 3.0], [0.5, 0.5, 0]])
    shards = edited(tiny_shards, tmp_path / "dots", picture=dotted, entry=sized, members=looked)
    data = data_of(
        shards,
        GAZE,
        views=[RandomView(64, crop=Crop(scale=(0.3, 0.9), rotation=30.0, flip=0.5))] * 2,
        evaluation=Evaluation(WholeImage(64)),
        shuffle=Shuffle(groups=4, window=16, flip=0.5),
        loading=Loading(threads=0, render=render),
    )
    seen = missed = 0
    for batch in batches_of(data, 4):
        assert batch.findings is None
        every = pixels_of(batch)[:, :, 0].numpy()
        for place in np.ndindex(every.shape[:2]):
            pixels, points = every[place], batch.gaze.points[place]
            points = points[~points.isnan().any(1)]
            ys, xs = np.nonzero(pixels > 127)
            if not len(xs):
                missed += 1
                assert not len(points)
                continue
            if xs.min() == 0 or ys.min() == 0 or xs.max() == 63 or ys.max() == 63:
                continue  # a dot that is cut has its middle elsewhere
            seen += 1
            middle = np.array([xs.mean() + 0.5, ys.mean() + 0.5]) / 64
            assert len(points) == 1
            np.testing.assert_allclose(points[0], middle, atol=0.8 / 64)
            map_SS = batch.gaze.map[place]
            assert float(map_SS.sum()) == pytest.approx(1, abs=1e-5)
            top = np.unravel_index(int(map_SS.argmax()), map_SS.shape)
            assert np.abs((np.array(top[::-1]) + 0.5) / 32 - middle).max() < 1.2 / 32
    assert seen >= 10
    assert missed >= 1


def test_only_studies_with_gaze_come_and_each_of_these_once(
    tiny_shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = source_of(tiny_shards)
    without = [1, 2, 9, 20, 31, 32, 40, 55]  # 48 are left: three batches
    shards = edited(tiny_shards, tmp_path / "few", members={(s, "gaze"): b"" for s in without})
    with caplog.at_level(logging.WARNING):
        two = Loading(threads=2)
        data = data_of(shards, GAZE, unit="study", global_batch=16, loading=two)
    studies = len(source.index.studies)
    looked = np.flatnonzero(source_of(shards).index.studies["gaze_size"] > 0).tolist()
    left_out = studies - len(looked)
    assert (left_out, len(looked)) == (8, 48)
    assert f"{left_out} of {studies} studies have no gaze" in caplog.text
    seen = []
    for batch in batches_of(data, 3):
        seen += source.index.images["study"][batch.image[0].numpy()].tolist()
        shown = source.index.images["study"][batch.image.numpy()]
        assert not np.isin(shown, without).any()
        assert (batch.gaze.map.sum((-2, -1)) > 0).float().mean() > 0.9
    assert sorted(seen) == looked


def test_an_image_that_nobody_looked_at_has_no_map_and_no_points(
    tiny_shards: Path, tmp_path: Path
) -> None:
    counts = np.bincount(source_of(tiny_shards).index.images["study"])
    study = int(np.flatnonzero(counts == 2)[0])
    first = int(np.flatnonzero(source_of(tiny_shards).index.images["study"] == study)[0])
    members = {(study, "gaze"): json.dumps({"01": [[*SPOT, 1]]}).encode()}
    shards = edited(tiny_shards, tmp_path / "one", members=members)
    data = data_of(shards, GAZE, views=[WholeImage(16)] * 2, unit="study")
    met = False
    for batch in batches_of(data, 12):
        for view, row in np.ndindex(*batch.image.shape):
            if int(batch.image[view, row]) == first:
                met = True
                assert not batch.gaze.map[view, row].any()
                assert batch.gaze.points[view, row].isnan().all()
            if int(batch.image[view, row]) == first + 1:
                points = batch.gaze.points[view, row]
                torch.testing.assert_close(points[:1], torch.tensor([SPOT]))
                assert points[1:].isnan().all()
    assert met


def test_batches_do_not_depend_on_threads_or_interruptions(tiny_shards: Path) -> None:
    whole = data_of(tiny_shards, GAZE, unit="study")
    expected = [bits(batch) for batch in batches_of(whole, 5)]
    after = batches_of(whole, 2)[1].after
    resumed = data_of(tiny_shards, GAZE, unit="study", loading=Loading(threads=3))
    resumed.load_state_dict(whole.state_dict() | {"positions": list(after)})
    assert [bits(batch) for batch in batches_of(resumed, 3)] == expected[2:]


def test_another_way_with_gaze_is_refused_on_resume(tiny_shards: Path) -> None:
    plain, data = data_of(tiny_shards), data_of(tiny_shards, GAZE)
    assert data.state_dict()["identity"]["data.gaze"] == [True]
    assert "data.gaze" not in plain.state_dict()["identity"]
    with pytest.raises(ValueError, match=r"data.gaze=False, this run has \[True\]"):
        data.load_state_dict(plain.state_dict())
    with pytest.raises(ValueError, match=r"data.gaze=\[True\], this run has False"):
        plain.load_state_dict(data.state_dict())


def test_which_of_two_sets_gives_its_gaze_is_refused_when_it_is_another(
    tiny_shards: Path, tmp_path: Path
) -> None:
    """Maps that are predicted in the one and recorded in the other, and the other way round."""
    packed_map = packed(np.eye(16))
    seen = edited(
        tiny_shards,
        tmp_path / "seen",
        entry=lambda _, entry: entry | {"saliency": packed_map},
        fields=("gaze", "saliency"),
    )
    both = GazeReading(Saliency("both", side=16))

    def mixed(*folders: Path) -> RadiographData:
        weights = {str(folder): 1.0 for folder in folders}
        return data_of(weights, both, views=[WholeImage(32)])

    one, other = mixed(tiny_shards, seen), mixed(seen, tiny_shards)
    assert one.state_dict()["identity"]["data.gaze"] == [True, False]
    assert other.state_dict()["identity"]["data.gaze"] == [False, True]
    swapped = one.state_dict()
    swapped["identity"] = swapped["identity"] | {"data.gaze": [False, True]}
    with pytest.raises(ValueError, match=r"data.gaze=\[False, True\], this run has \[True, False"):
        one.load_state_dict(swapped)


def test_findings_and_gaze_may_be_read_together(tiny_shards: Path) -> None:
    names = load_manifest(tiny_shards).labels[:2]
    both = data_of(tiny_shards, FindingReading(names), GAZE)
    alone = data_of(tiny_shards, GAZE)
    for one, other in zip(batches_of(both, 3), batches_of(alone, 3), strict=True):
        assert torch.equal(one.pixels, other.pixels)
        assert one.findings is not None
        assert looked_of(one.gaze) == looked_of(other.gaze)


def test_reports_and_gaze_are_refused_in_one_run(tiny_shards: Path) -> None:
    data = data_of(tiny_shards, GAZE)
    with pytest.raises(ValueError, match="reports and gaze cannot be read in one run"):
        data.read_reports(reading_of(tiny_shards))


@pytest.mark.parametrize("source", ["recorded", "both", "shuffled"])
def test_a_set_without_gaze_is_refused_by_name(
    tiny_shards: Path, tmp_path: Path, source: Any
) -> None:
    shards = edited(tiny_shards, tmp_path / "none", fields=("report", "boxes"))
    said = r"data.manifest .*none has no gaze, which the objective reads: its fields are \['report'"
    with pytest.raises(ValueError, match=said):
        data_of(shards, GazeReading(Saliency(source)))


def test_predicted_maps_are_asked_for_by_their_own_name(tiny_shards: Path) -> None:
    with pytest.raises(ValueError, match="has no predicted saliency, which the objective reads"):
        data_of(tiny_shards, GazeReading(Saliency("predicted")))


@pytest.mark.parametrize("source", ["predicted", "both"])
def test_with_predicted_maps_all_studies_take_part(
    tiny_shards: Path, tmp_path: Path, source: Any
) -> None:
    """The record's map of the image; recorded gaze, where it goes first, of those that have it."""
    map_SS = np.zeros((16, 16), np.float32)
    map_SS[4, 12] = 1
    without = {(s, "gaze"): b"" for s in range(0, 60, 2)}
    without = {k: v for k, v in without.items() if k[0] < len(source_of(tiny_shards).index.studies)}
    shards = edited(
        tiny_shards,
        tmp_path / "predicted",
        entry=lambda _, entry: entry | {"saliency": packed(map_SS)},
        members=without,
        fields=("gaze", "saliency"),
    )
    index = source_of(shards).index
    data = data_of(shards, GazeReading(Saliency(source, side=16)), views=[WholeImage(32)])
    assert len(data._stream.parts[0].units) == len(index.images)
    assert "data.gaze" not in data.state_dict()["identity"]
    recorded = set(np.flatnonzero(index.studies["gaze_size"] > 0).tolist())
    kinds = set()
    for batch in batches_of(data, 3):
        for row, image in enumerate(batch.image[0].tolist()):
            has = int(index.images["study"][image]) in recorded
            peak = int(batch.gaze.map[0, row].argmax())
            if source == "predicted" or not has:
                assert peak == 4 * 16 + 12
                torch.testing.assert_close(batch.gaze.map[0, row], torch.from_numpy(map_SS))
            fixations = source_of(shards).fixations(image)
            if source == "both" and has and fixations:
                size = (32, 32)
                own = heat_map(fixations, size, side=16, spread=0.03)
                np.testing.assert_allclose(batch.gaze.map[0, row], own, atol=1e-6)
            kinds.add(has)
    assert kinds == {True, False}


def test_a_map_that_the_crop_shows_nothing_of_is_empty_and_one_it_shows_some_of_sums_to_one(
    tiny_shards: Path, tmp_path: Path
) -> None:
    looked = gaze_of(tiny_shards, [[0.02, 0.02, 1.0]])
    shards = edited(tiny_shards, tmp_path / "corner", members=looked)
    crop = Crop(scale=(0.3, 0.6), rotation=0.0)
    data = data_of(shards, GAZE, views=[RandomView(16, crop=crop)])
    sums = torch.cat([batch.gaze.map.sum((-2, -1)).flatten() for batch in batches_of(data, 6)])
    assert ((sums == 0) | ((sums - 1).abs() < 1e-5)).all()
    assert 0 < int((sums > 0).sum()) < len(sums)
