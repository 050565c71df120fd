"""Findings beside views: of the image that is shown, where the view shows them, never another's."""

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_rad.data.findings import FindingReader, drawn
from lightning_rad.data.reader import Reader
from lightning_rad.data.settings import Evaluation, Loading, Shuffle
from lightning_rad.data.source import BadSampleError
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.data.views.whole_image import WholeImage
from lightning_rad.manifest import load_manifest
from lightning_rad.modalities.boxes import iou
from lightning_rad.modalities.evidence import FindingReading
from lightning_rad.schema import LabelledBatch
from tests.data.evidence import (
    batches_of,
    bits,
    data_of,
    edited,
    known_of,
    patients_of,
    pixels_of,
)
from tests.data.reports import source_of

SIDES = (240, 300)
CORNERS = (90, 60, 210, 160)


@pytest.fixture(scope="module")
def names(tiny_shards: Path) -> tuple[str, ...]:
    return load_manifest(tiny_shards).labels[:3]


def box(label: str, left: float, top: float, right: float, bottom: float) -> dict[str, Any]:
    return {"label": label, "x": left, "y": top, "w": right - left, "h": bottom - top}


def boxed(shards: Path, to: Path, boxes: Any, values: Any = None, **changes: Any) -> Path:
    """All images of the train split with the same boxes, and labels."""

    def entry(_: int, said: dict[str, Any]) -> dict[str, Any]:
        return said | {"boxes": boxes} | ({} if values is None else {"labels": values})

    return edited(shards, to, entry=entry, **changes)


def rectangle(_: int) -> np.ndarray:
    picture = np.zeros(SIDES, np.uint8)
    left, top, right, bottom = CORNERS
    picture[top:bottom, left:right] = 255
    return picture


@pytest.mark.parametrize("render", ["cpu", "device"])
@pytest.mark.parametrize(("rotation", "flip"), [(0.0, 0.0), (0.0, 0.5), (30.0, 0.5)])
def test_boxes_lie_on_what_the_view_shows_of_them(
    tiny_shards: Path,
    tmp_path: Path,
    names: tuple[str, ...],
    render: Any,
    rotation: float,
    flip: float,
) -> None:
    """A white rectangle, in crops that are turned, mirrored and reduced by a whole factor."""
    shards = boxed(tiny_shards, tmp_path / "boxed", [box(names[1], *CORNERS)], picture=rectangle)
    crop = Crop(scale=(0.5, 0.9), rotation=rotation, flip=flip)
    shuffle = Shuffle(groups=4, window=16, flip=0.5)
    data = data_of(
        shards,
        FindingReading(names),
        views=[RandomView(64, crop=crop)],
        evaluation=Evaluation(WholeImage(64)),
        shuffle=shuffle,
        loading=Loading(threads=0, render=render),
    )
    inside, factors = 0, set()
    for batch in batches_of(data, 4):
        pixels = pixels_of(batch)[0, :, 0].numpy()
        found = batch.findings
        assert found is not None
        if render == "device":
            factors |= set(batch.pixels.params[0].factors.tolist())
        for row, boxes in enumerate(found.boxes[0]):
            assert found.finding[0, row].tolist() == [1]
            ys, xs = np.nonzero(pixels[row] > 127)
            seen = torch.tensor([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]]).float()
            cut = bool((seen == 0).any() or (seen == 64).any())
            if rotation and cut:  # the hull of a turned box that is cut is wider than what is left
                continue
            inside += 1
            assert float(iou(boxes, seen)) > 0.9
    assert inside >= 8
    assert factors <= {1, 2, 3}
    assert 3 in factors or render == "cpu"


@pytest.mark.parametrize(
    ("corners", "kept"),
    [
        ((0, 0, 300, 240), (0, 6.4, 64, 57.6)),  # 300 wide: 64 * 240 / 300 high
        ((-1e9, -1e9, 1e9, 1e9), (0, 6.4, 64, 57.6)),
        ((-150, 0, 150, 240), (0, 6.4, 32, 57.6)),  # what lies beyond the picture is no part of it
        ((400, 0, 500, 100), None),
        ((-200, 0, -100, 100), None),
        ((10, 10, 10, 50), None),
        ((10, 10, 50, 5), None),
    ],
    ids=["whole", "huge", "half out", "out", "out on the left", "no area", "negative"],
)
def test_boxes_that_leave_the_picture_or_have_no_area(
    tiny_shards: Path, tmp_path: Path, names: tuple[str, ...], corners: Any, kept: Any
) -> None:
    shards = boxed(tiny_shards, tmp_path / "boxed", [box(names[0], *corners)], picture=rectangle)
    whole = {"views": [WholeImage(64)], "evaluation": Evaluation(WholeImage(64))}
    found = batches_of(data_of(shards, FindingReading(names), **whole), 1)[0].findings
    assert found is not None
    if kept is None:
        assert found.boxes.shape == (1, 8, 0, 4)
        assert found.finding.shape == (1, 8, 0)
        return
    expected = torch.tensor(kept).float().expand(1, 8, 1, 4)
    torch.testing.assert_close(found.boxes, expected, atol=0.02, rtol=0)


def test_a_view_lists_the_boxes_that_it_shows_and_no_others(
    tiny_shards: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    """Each box of a checkerboard of them is a column's; small crops show some."""
    boxes = [box(names[(i + j) % 3], 60 * i, 60 * j, 60 * i + 60, 60 * j + 60)
             for i in range(5) for j in range(4)]  # fmt: skip
    shards = boxed(tiny_shards, tmp_path / "boxed", boxes, picture=rectangle)
    data = data_of(
        shards,
        FindingReading(names),
        views=[RandomView(64, crop=Crop(scale=(0.1, 0.3), rotation=0.0))],
        evaluation=Evaluation(WholeImage(64)),
        loading=Loading(threads=0, render="device"),
    )
    batch = batches_of(data, 1)[0]
    assert batch.findings is not None
    params, counts = batch.pixels.params[0], set()
    for row in range(8):
        affine = params.affine[row] / 2.0**16 * float(params.factors[row])
        left, top = affine[:, 2]
        right, bottom = affine @ (64, 64, 1)
        expected = []
        for one in boxes:
            across = min(right, one["x"] + 60) - max(left, one["x"])
            down = min(bottom, one["y"] + 60) - max(top, one["y"])
            share = max(0, across) * max(0, down) / 3600
            if abs(share - 0.5) < 0.03:
                break
            expected += [names.index(one["label"])] if share > 0.5 else []
        else:
            finding = batch.findings.finding[0, row]
            assert finding[finding >= 0].tolist() == expected
            assert batch.findings.boxes[0, row].isnan().all(1).tolist() == (finding < 0).tolist()
            counts.add(len(expected))
    assert len(counts) > 1
    assert max(counts) <= batch.findings.boxes.shape[2] < len(boxes)


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


def test_hidden_labels_are_of_whole_patients_and_the_same_however_they_are_read(
    tiny_shards: Path, names: tuple[str, ...]
) -> None:
    reading = FindingReading(names, labelled=0.5, boxed=0.4)
    source = source_of(tiny_shards)
    every = list(range(len(source.index.images)))
    open_, half = (FindingReader(Reader([source]), reading, hides=hides) for hides in (False, True))
    labelled: dict[int, set[bool]] = {}
    boxes: dict[int, set[bool]] = {}
    for image, patient in zip(every, patients_of(source, every), strict=True):
        full, seen = open_.of(image), half.of(image)
        assert not np.isnan(full.labels).all()
        shown = not np.isnan(seen.labels).any()
        assert shown or np.isnan(seen.labels).all()
        labelled.setdefault(patient, set()).add(shown)
        if len(full.boxes):
            assert len(seen.boxes) in (0, len(full.boxes))
            boxes.setdefault(patient, set()).add(bool(len(seen.boxes)))
    assert all(len(said) == 1 for said in (*labelled.values(), *boxes.values()))
    shares = [np.mean([True in said for said in table.values()]) for table in (labelled, boxes)]
    assert 0.3 < shares[0] < 0.7
    assert 0.2 < shares[1] < 0.6
    both = [{p for p, said in table.items() if True in said} for table in (labelled, boxes)]
    assert both[1] - both[0]  # drawn apart: boxes of some whose labels are hidden
    few = FindingReader(Reader([source]), FindingReading(names, labelled=0.25), hides=True)
    kept = {
        patient
        for image, patient in zip(every, patients_of(source, every), strict=True)
        if not np.isnan(few.of(image).labels).all()
    }
    assert kept < both[0]  # a smaller share is part of a larger one


def test_a_stream_keeps_back_what_is_hidden(tiny_shards: Path, names: tuple[str, ...]) -> None:
    data = data_of(tiny_shards, FindingReading(names, labelled=0.5, boxed=0.0))
    seen = drawn("labelled", source_of(tiny_shards).index, 0.5)
    study = source_of(tiny_shards).index.images["study"]
    for batch in batches_of(data, 3):
        assert batch.findings.boxes.shape[2] == 0
        known = ~batch.findings.labels.isnan().all(-1)
        assert known.tolist() == seen[study[batch.image.numpy()]].tolist()
        assert known.any()
        assert not known.all()


def test_studies_of_no_known_patient_are_hidden_one_by_one(tiny_shards: Path) -> None:
    index = source_of(tiny_shards).index
    index.studies["patient"] = 0
    seen = drawn("labelled", index, 0.5)
    assert 0.3 < seen.mean() < 0.7
    assert drawn("labelled", index, 1.0).all()
    assert not drawn("labelled", index, 0.0).any()


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


@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_evaluation_hides_nothing_and_shows_boxes_of_the_whole_picture(
    tiny_shards: Path, tmp_path: Path, names: tuple[str, ...], stage: str
) -> None:
    def entry(image: int, said: dict[str, Any]) -> dict[str, Any]:
        boxes = [box(names[1], 0, 0, 150, 120), box(names[0], 150, 120, 300, 240)]
        return said | {"boxes": boxes[: image % 3], "labels": {names[2]: image % 2}}

    shards, scored = tiny_shards, "test" if stage == "test" else "val"
    for split in ("train", scored):
        to = tmp_path / split
        shards = edited(shards, to, entry=entry, picture=rectangle, split=split)
    reading = FindingReading((names[2], names[1], names[0]), labelled=0.0, boxed=0.0)
    evaluation = Evaluation(WholeImage(60), batch=7)
    views = {"views": [WholeImage(60)], "evaluation": evaluation}
    data = data_of(shards, reading, stage=stage, **views)
    for loader in data.val_dataloader():
        for raw in loader:
            batch: LabelledBatch = data.on_after_batch_transfer(raw, 0)
            assert batch.labels.shape[1] == len(data.labels)
            assert batch.gaze is None
            for row, image in enumerate(batch.image.tolist()):
                assert float(batch.findings.labels[row, 0]) == image % 2
                assert batch.findings.labels[row, 1:].isnan().all()
                finding = batch.findings.finding[row]
                assert finding[finding >= 0].tolist() == [1, 2][: image % 3]
                if image % 3 == 2:
                    expected = torch.tensor([[0, 6, 30, 30], [30, 30, 60, 54]]).float()
                    torch.testing.assert_close(
                        batch.findings.boxes[row, :2], expected, atol=0.02, rtol=0
                    )


def test_findings_unknown_to_the_set_that_is_evaluated_are_told(
    tiny_shards: Path,
    other_shards: Path,
    tmp_path: Path,
    names: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    fewer = edited(other_shards, tmp_path / "fewer", labels=names[:1])
    evaluation = Evaluation(WholeImage(16), batch=8, manifest=str(fewer))
    with caplog.at_level(logging.WARNING):
        data_of(tiny_shards, FindingReading(names), evaluation=evaluation)
    told = [r.getMessage() for r in caplog.records if "has no labels" in r.getMessage()]
    assert len(told) == 1
    assert str(list(names[1:])) in told[0]


def test_labels_that_are_none_are_an_error_in_evaluation(
    tiny_shards: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    shards = boxed(tiny_shards, tmp_path / "bad", [], [1, 0], split="val")
    _, score = data_of(shards, FindingReading(names)).val_dataloader()
    with pytest.raises(BadSampleError, match=r"val-000000\.tar, key .*: malformed labels"):
        list(score)
