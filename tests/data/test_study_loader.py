"""Studies for the evaluation of reports: which come, what a row holds, the same on any ranks."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric.utilities import move_data_to_device
from pytorch_lightning import Trainer

from lightning_rad.data.datamodule import RadiographData
from lightning_rad.data.settings import Evaluation, Normalise
from lightning_rad.data.source import BadSampleError, ShardSource
from lightning_rad.data.study_loader import LabelledStudies
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.data.views.whole_image import WholeImage
from lightning_rad.manifest import load_manifest
from lightning_rad.modalities.reading import Reading
from tests.data.reports import SETTINGS, altered, images_of, source_of

BAD_WORDS = {3: b"COMPARISON: none.", 8: b"FINDINGS: XXXX."}


def loader(shards: Path, reading: Reading, rank: int = 0, ranks: int = 1, **changes: Any) -> Any:
    settings = {"batch": 8, "studies": None} | changes
    views = settings.pop("views", 2)
    return LabelledStudies(
        source_of(shards, "val"),
        load_manifest(shards).labels,
        Evaluation(WholeImage(16), **settings),
        reading=reading,
        views=views,
        rank=rank,
        ranks=ranks,
    )


def rows_of(batches: Any) -> dict[int, tuple[Any, ...]]:
    """By study: its patient, images, pixels, labels and what its report says."""
    return {
        int(b.views.unit[row]): (
            int(b.views.patient[row]),
            *b.views.image[:, row].tolist(),
            b.views.views[:, row].numpy().tobytes(),
            b.labels[row].nan_to_num(-1).tolist(),
            int(b.views.report.hash[row]),
            *(t[row][t[row] >= 0].tolist() for t in b.views.report.tokens.values()),
        )
        for b in batches
        for row in range(len(b.labels))
    }


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_evaluate_every_study_in_equally_many_equal_batches(
    tiny_shards: Path, reading: Reading, ranks: int
) -> None:
    whole = rows_of(loader(tiny_shards, reading))
    assert set(whole) == set(range(len(source_of(tiny_shards, "val").index.studies)))
    shares = [loader(tiny_shards, reading, rank, ranks) for rank in range(ranks)]
    batches = [list(share) for share in shares]
    assert {len(share) for share in shares} == {len(b) for b in batches}
    assert len({tuple(len(x.labels) for x in b) for b in batches}) == 1
    seen = [rows_of(b) for b in batches]
    assert {k: v for rows in seen for k, v in rows.items()} == whole


def test_a_row_is_a_study_unmirrored_with_its_own_report(
    tiny_shards: Path, reading: Reading
) -> None:
    source = source_of(tiny_shards, "val")
    for batch in loader(tiny_shards, reading, views=3):
        assert batch.views.views.dtype == torch.uint8
        assert not batch.views.report.flipped.any()
        for row, study in enumerate(batch.views.unit.tolist()):
            images = images_of(source, study)
            assert batch.views.image[:, row].tolist() == [images[v % len(images)] for v in range(3)]
            patient = int(source.index.studies["patient"][study].astype(np.int64))
            assert int(batch.views.patient[row]) == patient
            expected = reading(source.report(study), flipped=False, draw=0)
            assert int(batch.views.report.hash[row]) == expected.hash
            for name, tokens in expected.tokens.items():
                given = batch.views.report.tokens[name][row]
                assert given[given >= 0].tolist() == tokens.tolist()


def test_views_of_one_image_are_alike_for_they_show_it_whole(
    tiny_shards: Path, reading: Reading
) -> None:
    source = source_of(tiny_shards, "val")
    for batch in loader(tiny_shards, reading):
        for row, study in enumerate(batch.views.unit.tolist()):
            same = torch.equal(*batch.views.views[:, row])
            assert same == (len(images_of(source, study)) == 1)


def test_batches_hold_as_many_views_as_batches_of_images_do(
    tiny_shards: Path, reading: Reading
) -> None:
    def sizes(**settings: int) -> set[int]:
        return {len(b.labels) for b in list(loader(tiny_shards, reading, **settings))[:-1]}

    assert (sizes(views=1), sizes(views=2), sizes(views=3)) == ({8}, {4}, {2})
    assert sizes(views=3, batch=2) == {1}


def test_labels_are_those_of_any_image(
    tiny_shards: Path, reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, source = load_manifest(tiny_shards), source_of(tiny_shards, "val")

    def said(study: int, ordinal: int, label: int) -> int | None:
        return (0, 1, None)[(study + ordinal * (1 + label % 2) + label) % 3]

    def record(source: ShardSource, study: int) -> Any:
        return {
            "images": [
                {
                    "file": f"{k:02d}.jpg",
                    "labels": {n: said(study, k, c) for c, n in enumerate(manifest.labels)},
                }
                for k in range(len(images_of(source, study)))
            ]
        }

    monkeypatch.setattr(ShardSource, "record", record)
    mixed = set()
    for batch in loader(tiny_shards, reading, views=1):  # though one image is shown
        for study, labels in zip(batch.views.unit.tolist(), batch.labels, strict=True):
            for label, value in enumerate(labels.tolist()):
                given = {said(study, k, label) for k in range(len(images_of(source, study)))}
                expected = 1.0 if 1 in given else 0.0 if 0 in given else float("nan")
                assert np.array_equal(value, expected, equal_nan=True)
                mixed.add(frozenset(given))
    assert len(mixed) == 6  # each alone and each pair


def test_a_limit_takes_the_same_studies_on_any_number_of_ranks(
    tiny_shards: Path, reading: Reading
) -> None:
    def chosen(ranks: int, studies: int) -> set[int]:
        shares = [loader(tiny_shards, reading, r, ranks, studies=studies) for r in range(ranks)]
        return {study for share in shares for study in rows_of(share)}

    assert chosen(1, 6) == chosen(2, 6) == chosen(4, 6)
    assert len(chosen(1, 6)) == 6
    assert chosen(1, 6) < chosen(1, 9)
    assert chosen(1, 6) != set(range(6))


def test_studies_that_say_nothing_are_left_out_and_counted(
    tiny_shards: Path, tmp_path: Path, reading: Reading, caplog: pytest.LogCaptureFixture
) -> None:
    shards = altered(tiny_shards, tmp_path / "some", said=BAD_WORDS, without=[0, 11], split="val")
    studies = len(source_of(shards, "val").index.studies)
    with caplog.at_level(logging.WARNING):
        seen = rows_of(loader(shards, reading))
    assert set(seen) == set(range(studies)) - {0, 3, 8, 11}
    [told] = [r.getMessage() for r in caplog.records]
    assert f"2 of {studies - 2} studies" in told
    assert str(shards) in told


def test_a_report_that_is_not_utf8_is_an_error_in_evaluation(
    tiny_shards: Path, tmp_path: Path, reading: Reading
) -> None:
    shards = altered(tiny_shards, tmp_path / "bad", said={4: b"heart \xff"}, split="val")
    with pytest.raises(BadSampleError, match=r"val-0000\d\d\.tar, key .*not UTF-8"):
        loader(shards, reading)


def test_a_report_that_is_cut_off_is_an_error_in_evaluation(
    tiny_shards: Path, tmp_path: Path, reading: Reading
) -> None:
    shards = altered(tiny_shards, tmp_path / "lost", lost=[4], split="val")
    with pytest.raises(BadSampleError, match=r"val-0000\d\d\.tar, key .* of \d+ bytes"):
        loader(shards, reading)


def test_an_image_that_cannot_be_read_is_an_error_in_evaluation(
    tiny_shards: Path, tmp_path: Path, reading: Reading
) -> None:
    shards = altered(tiny_shards, tmp_path / "torn", torn=[6], split="val")
    with pytest.raises(BadSampleError, match=r"val-0000\d\d\.tar, key "):
        list(loader(shards, reading))


# --- in the data module


def data_of(shards: Path, stage: str = "fit", **changes: Any) -> RadiographData:
    data = RadiographData(str(shards), **(SETTINGS | changes))
    data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    data.setup(stage)
    return data


@pytest.mark.parametrize(
    ("stage", "split"), [("fit", "val"), ("validate", "val"), ("test", "test")]
)
def test_a_third_loader_has_the_studies_of_the_scored_split(
    tiny_shards: Path, reading: Reading, stage: str, split: str
) -> None:
    data = data_of(tiny_shards, stage)
    assert len(data.val_dataloader()) == 2
    data.read_reports(reading)
    *_, studies = loaders = data.val_dataloader()
    assert len(loaders) == 3
    assert len(rows_of(studies)) == len(source_of(tiny_shards, split).index.studies)
    assert data.test_dataloader() == loaders
    assert data.predict_dataloader() == loaders[:2]


def test_evaluation_asks_nothing_of_the_training_set(tiny_shards: Path, reading: Reading) -> None:
    mirrored = [RandomView(16, crop=Crop(flip=0.5))] * 2
    data = data_of(tiny_shards, "validate", unit="patient", views=mirrored)
    data.read_reports(reading)
    assert len(data.val_dataloader()) == 3


def test_there_is_no_third_loader_without_reports_or_where_none_is_asked_for(
    tiny_shards: Path, tmp_path: Path, reading: Reading
) -> None:
    every = range(len(source_of(tiny_shards, "val").index.studies))
    bare = altered(tiny_shards, tmp_path / "bare", without=every, split="val")
    none = Evaluation(WholeImage(16), batch=8, studies=0)
    for data in (data_of(bare), data_of(tiny_shards, evaluation=none)):
        data.read_reports(reading)
        assert len(data.val_dataloader()) == 2


def test_views_are_normalised_on_the_device(tiny_shards: Path, reading: Reading) -> None:
    data = data_of(tiny_shards, normalise=Normalise(mean=0.5, std=0.5))
    data.read_reports(reading)
    raw = next(iter(data.val_dataloader()[2]))
    greys = raw.views.views.clone().float()
    batch = data.on_after_batch_transfer(move_data_to_device(raw, torch.device("cpu")), 2)
    assert torch.allclose(batch.views.views, (greys / 255 - 0.5) / 0.5, atol=1e-6)
    assert batch.views.report.tokens["text"].dtype == torch.int64
