"""A study of which something cannot be read gives way to another one whole: images and report."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_rad.data.reader import TooManyBadSamplesError
from lightning_rad.data.settings import Loading
from lightning_rad.modalities.reading import Reading
from lightning_rad.modalities.report import text_hash
from tests.data.reports import (
    altered,
    batches_of,
    data_of,
    images_of,
    reports_of,
    source_of,
    study_of,
)

BAD = {
    "not UTF-8": b"FINDINGS: \xff\xfe heart is normal.",
    "nothing left": b"COMPARISON: none. INDICATION: cough.",
    "only marks": b"FINDINGS: XXXX.",
    "too large": b"FINDINGS: heart. " + b"x" * (1 << 20),
}


@pytest.mark.parametrize("unit", ["study", "image"])
@pytest.mark.parametrize("what", [*BAD, "cut off", "torn image"])
def test_a_bad_sample_gives_way_to_the_next_study_whole(
    tiny_shards: Path,
    tmp_path: Path,
    reading: Reading,
    caplog: pytest.LogCaptureFixture,
    what: str,
    unit: str,
) -> None:
    source, study = source_of(tiny_shards), 5
    images = images_of(source, study)
    kinds: dict[str, Any] = {"torn image": {"torn": images}, "cut off": {"lost": [study]}}
    amiss = kinds.get(what) or {"said": {study: BAD[what]}}
    shards = altered(tiny_shards, tmp_path / "bad", without=[study + 1], **amiss)
    data = data_of(shards, reading, unit=unit, loading=Loading(threads=2))
    with caplog.at_level(logging.WARNING):
        batches = batches_of(data, 24)  # several data epochs
    hashes = {
        text_hash(reading.text(data)): number for number, data in enumerate(reports_of(source))
    }
    its_units = {study} if unit == "study" else set(images)
    replaced = 0
    for batch in batches:
        for row, shown_V in enumerate(batch.image.T.tolist()):
            shown = {study_of(source, image) for image in shown_V}
            assert shown == {hashes[int(batch.report.hash[row])]}
            if int(batch.unit[row]) in its_units:
                assert shown == {study + 2}
                replaced += 1
    assert replaced > 1
    told = [r.getMessage() for r in caplog.records if "unreadable" in r.getMessage()]
    key = source.index.studies[study]["key"].decode()
    assert len(told) == 1
    assert f"key {key}" in told[0]
    assert ".tar" in told[0]
    assert data._stream.reader.bad >= replaced


def test_views_that_showed_different_images_do_so_of_the_next_study_as_far_as_it_has_them(
    tiny_shards: Path, tmp_path: Path, reading: Reading
) -> None:
    source = source_of(tiny_shards)
    counts = np.bincount(source.index.images["study"])
    two = next(s for s in range(len(counts) - 1) if counts[s] == counts[s + 1] == 2)
    one = next(s for s in range(len(counts) - 1) if (counts[s], counts[s + 1]) == (2, 1))
    for study, shown in ((two, 2), (one, 1)):
        shards = altered(tiny_shards, tmp_path / str(study), torn=images_of(source, study))
        stream = data_of(shards, reading)._stream
        read = partial(reading, flipped=False, draw=0)
        a, b = images_of(source, study)
        for wanted in ([a, b], [b, a], [b, a, b]):
            pixels, used, report = stream.reader.row_or_neighbour(wanted, read)
            assert {study_of(source, image) for image in used} == {study + 1}
            assert len(set(used)) == shown
            assert used == [used[wanted.index(image)] for image in wanted]
            assert len(pixels) == len(wanted)
            assert report.hash == read(source.report(study + 1)).hash
        same = stream.reader.row_or_neighbour([b, b], read)
        assert same[1] == images_of(source, study + 1)[:1] * 2
        assert same[0][0] is same[0][1]


def test_the_last_study_gives_way_to_the_first_of_the_next_set_and_the_last_set_to_the_first(
    tiny_shards: Path, other_shards: Path, tmp_path: Path, reading: Reading
) -> None:
    a, b = source_of(tiny_shards), source_of(other_shards)
    last_a, last_b = len(a.index.studies) - 1, len(b.index.studies) - 1
    sets = [
        altered(tiny_shards, tmp_path / "a", torn=images_of(a, last_a)),
        altered(other_shards, tmp_path / "b", torn=images_of(b, last_b), without=[0]),
    ]
    stream = data_of({str(s): 1.0 for s in sets}, reading)._stream
    read, first_b = partial(reading, flipped=False, draw=0), len(a.index.images)
    _, used, report = stream.reader.row_or_neighbour(images_of(a, last_a)[:1] * 2, read)
    assert used[0] == first_b + images_of(b, 1)[0]
    assert report.hash == read(b.report(1)).hash
    wanted = [first_b + images_of(b, last_b)[0]] * 2
    _, used, report = stream.reader.row_or_neighbour(wanted, read)
    assert used[0] == 0
    assert report.hash == read(a.report(0)).hash


def test_reports_that_are_all_bad_end_the_run(
    tiny_shards: Path, tmp_path: Path, reading: Reading
) -> None:
    every = range(len(source_of(tiny_shards).index.studies))
    shards = altered(tiny_shards, tmp_path / "bad", said=dict.fromkeys(every, b"XXXX"))
    data = data_of(shards, reading, loading=Loading(threads=0, max_bad_fraction=1.0))
    with pytest.raises(TooManyBadSamplesError, match="in a row"):
        batches_of(data, 1)
    data = data_of(shards, reading, loading=Loading(threads=0, max_bad_fraction=0.001))
    with pytest.raises(TooManyBadSamplesError, match=r"data.loading.max_bad_fraction=0.001"):
        batches_of(data, 1)
