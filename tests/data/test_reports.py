"""Reports in the stream: which studies come, and what comes with them."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric.utilities import move_data_to_device

from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.manifest import load_manifest
from lightning_rad.modalities.reading import Reading
from tests.data.reports import (
    SETTINGS,
    altered,
    batches_of,
    data_of,
    reading_of,
    rows_of,
    source_of,
    study_of,
)

SHUFFLE = SETTINGS["shuffle"]


def test_reports_come_beside_the_very_batches_that_come_without(
    tiny_shards: Path, reading: Reading
) -> None:
    """Where every study has one."""
    without = batches_of(data_of(tiny_shards, None), 8)
    beside = batches_of(data_of(tiny_shards, reading), 8)
    for a, b in zip(without, beside, strict=True):
        assert a.report is None
        assert torch.equal(a.pixels, b.pixels)
        assert all(torch.equal(getattr(a, k), getattr(b, k)) for k in ("unit", "patient", "image"))


@pytest.mark.parametrize("unit", ["study", "image"])
def test_a_row_has_the_report_of_the_study_that_it_shows(
    tiny_shards: Path, reading: Reading, unit: str
) -> None:
    source = source_of(tiny_shards)
    seen = set()
    for batch in batches_of(data_of(tiny_shards, reading, unit=unit), 6):
        for row, said in enumerate(rows_of(batch.report)):
            studies = {study_of(source, image) for image in batch.image[:, row].tolist()}
            assert len(studies) == 1
            expected = reading(source.report(*studies), flipped=False, draw=0)
            assert said == (
                expected.hash,
                False,
                *(tuple(tokens.tolist()) for tokens in expected.tokens.values()),
            )
            seen.add(said[0])
    assert len(seen) > 30


def test_tokens_are_as_wide_as_the_longest_asks_for_in_eights_and_at_most_the_limit(
    tiny_shards: Path,
) -> None:
    widths = set()
    for batch in batches_of(data_of(tiny_shards, reading_of(tiny_shards, limit=60)), 7):
        for name, limit in (("caption", 60), ("text", 30)):
            tokens = batch.report.tokens[name]
            longest = int((tokens >= 0).sum(1).max())
            assert tokens.shape[1] == min(-(-longest // 8) * 8, limit)
            padded = tokens < 0
            assert (padded[:, 1:] >= padded[:, :-1]).all()  # at the end alone
            assert (tokens[padded] == -1).all()
            widths.add(tokens.shape[1])
    assert {30, 60} & widths
    short = reading_of(tiny_shards, limit=200)
    [batch] = batches_of(data_of(tiny_shards, short), 1)
    assert batch.report.tokens["caption"].shape[1] % 8 == 0


def test_studies_without_a_report_never_come_and_the_others_once(
    tiny_shards: Path, tmp_path: Path, reading: Reading, caplog: pytest.LogCaptureFixture
) -> None:
    source = source_of(tiny_shards)
    studies = len(source.index.studies)
    without = [0, 3, 4, 17, 30, studies - 1]
    shards = altered(tiny_shards, tmp_path / "some", without=without)
    with caplog.at_level(logging.WARNING):
        data = data_of(shards, reading, global_batch=4)
    left = studies - len(without)
    assert len(data.train_dataloader()) == left // 4
    told = [r.getMessage() for r in caplog.records if "no report" in r.getMessage()]
    assert told == [
        f"data.manifest {shards}: {len(without)} of {studies} studies have no report and are left "
        "out"
    ]
    batches = batches_of(data, -(-2 * left // 4))
    images = torch.cat([b.image for b in batches], 1)[0].reshape(len(batches), 4, -1)
    # rows are group by group, a turn of groups a batch: the order of positions
    came = [study_of(source, int(i)) for i in images.flatten()][: 2 * left]
    assert sorted(came[:left]) == sorted(came[left:]) == sorted(set(range(studies)) - set(without))


def test_the_largest_batch_counts_the_studies_that_are_left(
    tiny_shards: Path, tmp_path: Path, reading: Reading
) -> None:
    studies = len(source_of(tiny_shards).index.studies)
    shards = altered(tiny_shards, tmp_path / "few", without=range(0, studies, 2))
    data_of(shards, None, global_batch=16)
    with pytest.raises(ValueError, match=rf"takes 16 units of .* {studies // 2} units"):
        data_of(shards, reading, global_batch=16)


def test_shards_that_left_all_reports_out_are_told_so(
    tiny_shards: Path, tmp_path: Path, reading: Reading
) -> None:
    studies = len(source_of(tiny_shards).index.studies)
    shards = altered(tiny_shards, tmp_path / "none", without=range(studies))
    with pytest.raises(
        ValueError, match=r"^data.manifest .*none, data.unit=study with a report: .* hold 0$"
    ):
        data_of(shards, reading)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unit": "patient"}, r"^data\.unit=patient has several reports"),
        (
            {"views": [RandomView(16, crop=Crop()), RandomView(16, crop=Crop(flip=0.5))]},
            r"^data\.views\[1\]\.crop\.flip is 0\.5: .* data\.shuffle\.flip mirrors",
        ),
    ],
)
def test_what_would_part_images_from_their_report_is_refused(
    tiny_shards: Path, reading: Reading, changes: dict[str, Any], said: str
) -> None:
    data_of(tiny_shards, None, **changes)
    with pytest.raises(ValueError, match=said) as refusal:
        data_of(tiny_shards, reading, **changes)
    assert "\n" not in str(refusal.value)


def test_a_set_without_reports_is_refused_by_name(
    tiny_shards: Path, other_shards: Path, tmp_path: Path, reading: Reading
) -> None:
    bare = altered(other_shards, tmp_path / "bare")
    manifest = load_manifest(bare)
    replace(manifest, fields=("gaze", "boxes")).save()
    mixed = {str(tiny_shards): 1.0, str(bare): 1.0}
    data_of(mixed, None)
    with pytest.raises(ValueError, match=rf"^data.manifest {bare} has no reports.*'gaze', 'boxes'"):
        data_of(mixed, reading)


def test_a_batch_reaches_the_objective_with_its_reports(
    tiny_shards: Path, reading: Reading
) -> None:
    data = data_of(tiny_shards, reading)
    [raw] = batches_of(data, 1)
    moved = move_data_to_device(raw, torch.device("cpu"))
    batch = data.on_after_batch_transfer(moved, 0)
    assert rows_of(batch.report) == rows_of(raw.report)
    assert batch.report.tokens.keys() == {"caption", "text"} == set(reading.digests)
    some = batch.rows(slice(2, 5))
    assert rows_of(some.report) == rows_of(raw.report)[2:5]
    assert torch.equal(some.views, batch.views[:, 2:5])
    assert some.image.shape == (2, 3)
    assert some.unit.tolist() == batch.unit.tolist()[2:5]


@pytest.mark.parametrize(
    ("theirs", "mine", "named"),
    [
        ({"reading": True}, {}, "data.reports=True, this run has False"),
        ({}, {"reading": True}, "data.reports=False, this run has True"),
        ({}, {"flip": 0.5}, "data.shuffle.flip=0.0, this run has 0.5"),
        ({"flip": 0.5}, {}, "data.shuffle.flip=0.5, this run has 0.0"),
        ({"flip": 0.5}, {"flip": 0.25}, "data.shuffle.flip=0.5, this run has 0.25"),
    ],
)
def test_another_way_with_reports_is_refused_on_resume(
    tiny_shards: Path,
    reading: Reading,
    caplog: pytest.LogCaptureFixture,
    theirs: dict[str, Any],
    mine: dict[str, Any],
    named: str,
) -> None:
    saved, other = (
        data_of(
            tiny_shards,
            reading if "reading" in kind else None,
            shuffle=replace(SHUFFLE, flip=kind.get("flip", 0.0)),
        )
        for kind in (theirs, mine)
    )
    state = saved.state_dict()
    with pytest.raises(ValueError, match=f"^cannot resume: .*{named};"):
        other.load_state_dict(state)
    saved.load_state_dict(state)
    other.force_resume = True
    with caplog.at_level(logging.WARNING):
        other.load_state_dict(state)
    assert named in caplog.text


def test_an_objective_that_reads_nothing_gets_all_studies_after_one_that_did(
    tiny_shards: Path, tmp_path: Path, reading: Reading
) -> None:
    shards = altered(tiny_shards, tmp_path / "some", without=[0, 1, 2])
    data = data_of(shards, reading)
    few = len(data._stream.parts[0].units)
    data.setup("fit")
    assert len(data._stream.parts[0].units) == few + 3
    assert batches_of(data, 1)[0].report is None
    assert len(data.val_dataloader()) == 2
