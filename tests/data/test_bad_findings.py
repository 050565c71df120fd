"""Findings that cannot be understood count as none, are told once, and are no other image's."""

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_rad.data.source import BadSampleError
from lightning_rad.data.views.whole_image import WholeImage
from lightning_rad.modalities.evidence import FindingReading
from tests.data.evidence import batches_of, box, boxed, data_of, edited, known_of
from tests.data.reports import source_of

MALFORMED: dict[str, Any] = {
    "boxes that are none": {"boxes": "here"},
    "a box without a side": {"boxes": [{"label": "x", "x": 1, "y": 1, "w": 3}]},
    "a box in words": {"boxes": [{"label": "x", "x": "left", "y": 1, "w": 3, "h": 3}]},
    "NaN in a box": {"boxes": [box("x", 0, math.nan, 8, 8)]},
    "an infinite box": {"boxes": [box("x", 0, 0, math.inf, 8)]},
    "a box beyond floats": {"boxes": [box("x", 0, 0, 10**400, 8)]},
    "a box that is a number": {"boxes": [3]},
    "labels that are none": {"labels": [1, 0]},
    "a label that is none": {"labels": 7},
}


@pytest.mark.parametrize("what", [*MALFORMED, "no JSON", "a list", "deep", "cut off"])
def test_what_cannot_be_understood_counts_as_without_findings_and_is_told_once(
    tiny_shards: Path,
    tmp_path: Path,
    names: tuple[str, ...],
    what: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source, study = source_of(tiny_shards), 5
    mine = np.flatnonzero(source.index.images["study"] == study).tolist()
    fields: dict[str, Any] = {}
    if what in MALFORMED:
        said = {key: _named(value, names[0]) for key, value in MALFORMED[what].items()}
        fields["entry"] = lambda image, entry: entry | said if image in mine else entry
    else:
        body = {"no JSON": b"{", "a list": b"[]", "deep": b"[" * 100_000, "cut off": b'{"images"'}
        fields["members"] = {(study, "json"): body[what]}
    shards = edited(tiny_shards, tmp_path / "bad", **fields)
    whole = {"views": [WholeImage(16)] * 2}
    with caplog.at_level(logging.WARNING):
        good = batches_of(data_of(tiny_shards, FindingReading(names), **whole), 20)
        batches = batches_of(data_of(shards, FindingReading(names), **whole), 20)
    met = 0
    for before, after in zip(good, batches, strict=True):
        for row, image in enumerate(after.image[0].tolist()):
            here = (slice(None), slice(row, row + 1))
            if image in mine:
                met += 1
                assert after.findings.labels[here].isnan().all()
                assert (after.findings.finding[here] == -1).all()
            else:
                assert known_of(after.findings.at(here)) == known_of(before.findings.at(here))
        assert torch.equal(before.pixels, after.pixels)
    assert met >= 2
    told = [r.getMessage() for r in caplog.records if "without findings" in r.getMessage()]
    assert len(told) == 1
    assert f"key {source.index.studies[study]['key'].decode()}" in told[0]
    assert ".tar" in told[0]


def _named(value: Any, name: str) -> Any:
    boxes = isinstance(value, list) and [b | {"label": name} for b in value if isinstance(b, dict)]
    return boxes or value


@pytest.mark.parametrize("value", [2, -1, "yes", 0.5, math.nan, [1]])
def test_a_label_that_is_no_label_counts_as_without(
    tiny_shards: Path, tmp_path: Path, names: tuple[str, ...], value: Any
) -> None:
    shards = boxed(tiny_shards, tmp_path / "bad", [], {names[0]: 1, names[1]: value})
    for wanted, known in ((names[:2], False), (names[:1], True)):
        found = batches_of(data_of(shards, FindingReading(wanted)), 1)[0].findings
        assert bool(found.labels.isnan().all()) is not known


def test_labels_that_are_none_are_an_error_in_evaluation(
    tiny_shards: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    shards = boxed(tiny_shards, tmp_path / "bad", [], [1, 0], split="val")
    _, score = data_of(shards, FindingReading(names)).val_dataloader()
    with pytest.raises(BadSampleError, match=r"val-000000\.tar, key .*: malformed labels"):
        list(score)


def test_a_word_that_is_no_finding_is_told_once_in_training_and_evaluation_together(
    tiny_shards: Path, tmp_path: Path, names: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    shards = boxed(tiny_shards, tmp_path / "odd", [box("odd", 0, 0, 8, 8)], {names[0]: 1})
    with caplog.at_level(logging.WARNING):
        data = data_of(shards, FindingReading(names))
        batches_of(data, 2)
        for loader in data.val_dataloader():
            list(loader)
    assert len([line for line in caplog.messages if "boxes labelled 'odd'" in line]) == 1
