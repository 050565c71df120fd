"""Findings beside views: of the image that is shown, where the view shows them, never another's."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_rad.data.settings import Evaluation, Loading
from lightning_rad.data.views.whole_image import WholeImage
from lightning_rad.manifest import load_manifest
from lightning_rad.modalities.evidence import FindingReading
from tests.data.evidence import batches_of, bits, box, boxed, data_of, edited


def test_labels_and_boxes_are_those_of_the_image_shown_after_a_neighbour_took_its_place(
    tiny_shards: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    def entry(image: int, said: dict[str, Any]) -> dict[str, Any]:
        labels = {names[bit]: image >> bit & 1 for bit in range(3)}
        side = 1 + image % 28
        return said | {"labels": labels, "boxes": [box(names[image % 3], 0, 0, side, 32)]}

    torn = (4, 7, 8)
    shards = edited(tiny_shards, tmp_path / "torn", entry=entry, torn=torn)
    whole = {"views": [WholeImage(16)] * 2, "unit": "study", "global_batch": 16}
    loading = Loading(threads=2, max_bad_fraction=0.5)
    data = data_of(shards, FindingReading(names), **whole, loading=loading)
    replaced = set()
    for batch in batches_of(data, 8):
        assert batch.findings is not None
        for view, row in np.ndindex(*batch.image.shape):
            image = int(batch.image[view, row])
            assert image not in torn
            replaced |= {image} & {5, 9}
            said = [float(image >> bit & 1) for bit in range(3)]
            assert batch.findings.labels[view, row].tolist() == said
            assert batch.findings.finding[view, row].tolist() == [image % 3]
            assert float(batch.findings.boxes[view, row, 0, 2]) == pytest.approx(
                (1 + image % 28) / 2, abs=0.02
            )
    assert replaced == {5, 9}


def test_boxes_of_other_words_are_read_by_alias_and_the_rest_ignored_and_told_once(
    tiny_shards: Path, tmp_path: Path, names: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    boxes = [box(word, 0, 0, 16, 16) for word in (names[2], "Infiltrate", "Lung Opacity")]
    shards = boxed(tiny_shards, tmp_path / "boxed", boxes)
    reading = FindingReading(names, aliases={"Infiltrate": names[0]})
    whole = {"views": [WholeImage(16)]}
    with caplog.at_level(logging.WARNING):
        batches = batches_of(data_of(shards, reading, **whole, loading=Loading(threads=2)), 3)
    assert all(row.tolist() == [2, 0] for b in batches for row in b.findings.finding[0])
    told = [r.getMessage() for r in caplog.records if "Lung Opacity" in r.getMessage()]
    assert len(told) == 1
    assert "findings.reading.aliases" in told[0]
    assert not [r for r in caplog.records if "Infiltrate" in r.getMessage()]


@pytest.mark.parametrize("render", ["cpu", "device"])
def test_the_views_are_those_of_a_run_that_reads_nothing_and_the_greys_are_their_own(
    tiny_shards: Path, names: tuple[str, ...], render: Any
) -> None:
    changes = {"unit": "study", "loading": Loading(threads=2, render=render)}
    data, plain = (
        data_of(tiny_shards, FindingReading(names), **changes),
        data_of(tiny_shards, **changes),
    )
    for with_, without in zip(batches_of(data, 4), batches_of(plain, 4), strict=True):
        given, bare = (
            d.on_after_batch_transfer(b, 0) for d, b in ((data, with_), (plain, without))
        )
        assert torch.equal(given.views, bare.views)
        for field in ("unit", "patient", "image"):
            assert torch.equal(getattr(given, field), getattr(bare, field))
        assert bare.findings is bare.gaze is bare.greys is None
        assert given.gaze is None
        assert given.greys.dtype == torch.uint8
        torch.testing.assert_close((given.greys / 255 - 0.5) / 0.25, given.views)
        if render == "cpu":
            assert given.greys is with_.pixels


def test_batches_do_not_depend_on_ranks_threads_or_interruptions(
    tiny_shards: Path, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = FindingReading(names, labelled=0.5, boxed=0.7)
    whole = data_of(tiny_shards, reading, unit="study")
    expected = [bits(batch) for batch in batches_of(whole, 6)]
    after = batches_of(whole, 2)[1].after
    for threads in (0, 3):
        resumed = data_of(tiny_shards, reading, unit="study", loading=Loading(threads=threads))
        state = whole.state_dict() | {"positions": list(after)}
        resumed.load_state_dict(state)
        assert [bits(batch) for batch in batches_of(resumed, 4)] == expected[2:]
    shares = []
    for rank in range(2):
        part = data_of(tiny_shards, unit="study")
        trainer = part.trainer
        place = type(trainer)
        monkeypatch.setattr(place, "global_rank", property(lambda _, rank=rank: rank))
        monkeypatch.setattr(place, "world_size", property(lambda _: 2))
        part.read_findings(reading)
        shares.append(batches_of(part, 6))
    for step, both in enumerate(zip(*shares, strict=True)):
        assert [row for share in both for row in bits(share)] == expected[step]


def test_a_finding_that_is_no_label_is_refused_by_set_and_setting(
    tiny_shards: Path, names: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match=r"data.manifest .* has no label 'gout', which ") as told:
        data_of(tiny_shards, FindingReading((*names, "gout")))
    assert "model.init_args.findings.reading.names" in str(told.value)
    assert all(label in str(told.value) for label in load_manifest(tiny_shards).labels)


def test_of_several_sets_one_may_be_without_labels(
    tiny_shards: Path, other_shards: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    bare = boxed(other_shards, tmp_path / "bare", [], {}, labels=())
    mixed = {str(tiny_shards): 1.0, str(bare): 1.0}
    evaluation = Evaluation(WholeImage(16), batch=8, manifest=str(tiny_shards))
    data = data_of(mixed, FindingReading(names), evaluation=evaluation)
    first = data._stream.parts[1].first_image
    for batch in batches_of(data, 3):
        unknown = batch.findings.labels.isnan().all(-1)
        assert (unknown == (batch.image >= first)).all()
        assert unknown.any()
        assert not unknown.all()
    with pytest.raises(ValueError, match=f"has no label '{names[0]}'"):
        data_of(bare, FindingReading(names), evaluation=evaluation)


def test_an_older_checkpoint_goes_on_where_it_stood_with_findings_too(
    tiny_shards: Path, names: tuple[str, ...]
) -> None:
    plain, data = data_of(tiny_shards), data_of(tiny_shards, FindingReading(names))
    assert plain.state_dict() == data.state_dict()
    assert not any("gaze" in key or "findings" in key for key in data.state_dict()["identity"])
    data.load_state_dict(plain.state_dict() | {"positions": [16]})
    third, again = batches_of(plain, 3)[2], batches_of(data, 1)[0]
    assert torch.equal(third.pixels, again.pixels)


def test_an_objective_that_reads_nothing_gets_none_after_one_that_did(
    tiny_shards: Path, names: tuple[str, ...]
) -> None:
    data = data_of(tiny_shards, FindingReading(names))
    data.setup("fit")
    assert batches_of(data, 1)[0].findings is None
    assert all(b.findings is None for loader in data.val_dataloader() for b in loader)
