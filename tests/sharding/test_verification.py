import dataclasses
import json

import cv2
import numpy as np
import pytest

from lightning_rad.manifest import load_manifest, read_index
from lightning_rad.schema import Radiograph
from lightning_rad.sharding import verify
from lightning_rad.sharding.builder import build_recipe
from lightning_rad.sharding.indexing import Layout, file_digest, index_shard
from lightning_rad.sharding.recipe import Recipe, SourceSettings
from lightning_rad.sharding.source import PlannedStudy, ReadStudy
from lightning_rad.sharding.tar import walk
from tests.sharding.phantoms import phantom, recipe
from tests.sharding.test_tar import make_tar


@pytest.fixture
def built(tmp_path):
    return build_recipe(recipe(), tmp_path / "b", workers=1)


def problems(*folders):
    return verify(list(folders), workers=1).problems


def redress(manifest, number=0, **changes):
    """Write the manifest anew, untrue where asked and consistent otherwise."""
    shard = manifest.shards[number]
    shard = dataclasses.replace(
        shard,
        sha256=file_digest(manifest.root / shard.file),
        index_sha256=file_digest(manifest.root / shard.index),
        bytes=(manifest.root / shard.file).stat().st_size,
    )
    shards = list(manifest.shards)
    shards[number] = dataclasses.replace(shard, **changes)
    dataclasses.replace(manifest, shards=tuple(shards)).save()


def test_a_whole_set_has_no_problem_and_every_image_was_decoded(built):
    report = verify([built.root])
    assert (report.ok, report.problems, report.notes) == (True, [], [])
    assert report.images == sum(s.images for s in built.shards)


@pytest.mark.parametrize("where", [0.02, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["file", "index"])
def test_one_flipped_byte_anywhere_is_caught(built, where, kind):
    path = built.root / getattr(built.shards[0], kind)
    data = bytearray(path.read_bytes())
    data[int(len(data) * where)] ^= 1
    path.write_bytes(data)
    assert any(path.name in p and "sha256" in p for p in problems(built.root))


def test_missing_files_are_all_listed(built):
    (built.root / built.shards[0].file).unlink()
    (built.root / built.shards[1].index).unlink()
    found = problems(built.root)
    assert [p for p in found if p.endswith("missing")] == [
        f"{built.root / built.shards[0].file}: missing",
        f"{built.root / built.shards[1].index}: missing",
    ]


@pytest.mark.parametrize("count", ["patients", "studies", "images"])
def test_a_wrong_count_is_caught(built, count):
    redress(built, **{count: getattr(built.shards[0], count) + 1})
    stated = getattr(built.shards[0], count) + 1
    assert any(f"{count}, the manifest says {stated}" in p for p in problems(built.root))


def rewrite(manifest, change, number=0):
    """Change the members of a shard, and make index and manifest agree with the result."""
    shard = manifest.shards[number]
    path = manifest.root / shard.file
    raw = path.read_bytes()
    members = [(m.name, raw[m.offset : m.offset + m.size]) for m in walk(path)]
    make_tar(path, [(n, change(n, d)) for n, d in members])
    record = index_shard(
        path,
        manifest.root / shard.index,
        shard_file=shard.file,
        index_file=shard.index,
        split=shard.split,
        layout=Layout(),
        patient_of=lambda _, body: int(body["patient"], 16),
    )
    shards = list(manifest.shards)
    shards[number] = record.shard
    dataclasses.replace(manifest, shards=tuple(shards)).save()


def edit_json(edit):
    def change(name, data):
        if not name.endswith(".json") or name.endswith("gaze.json"):
            return data
        body = json.loads(data)
        edit(body)
        return json.dumps(body).encode()

    return change


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda b: b["images"][0].update(height=31), "32 x 38 pixels, its JSON says 31 x 38"),
        (lambda b: b["images"][0].update(view=None), "image 0 has no valid 'view'"),
        (lambda b: b["images"][0].pop("labels"), "image 0 has no valid 'labels'"),
        (lambda b: b["images"][0]["labels"].update(Effusion=2), "label Effusion = 2"),
        (lambda b: b["images"][0]["labels"].update(Other=1), "label Other = 1"),
        (
            lambda b: b["images"][0]["boxes"][0].update(w=500),
            "has a box that is malformed or leaves it",
        ),
        (lambda b: b["images"][0]["boxes"][0].pop("w"), "has a box that is malformed or leaves it"),
        (lambda b: b["images"][0].update(pixels="x"), "has a malformed 'pixels'"),
        (lambda b: b["images"].append(dict(b["images"][0], file="07.jpg")), "its JSON lists"),
        (lambda b: b["images"][0].update(file="no.jpg"), "has a malformed 'file'"),
        (lambda b: b["images"][0].update(file="07.jpg"), "image 0: not in its JSON"),
        (lambda b: b.update(split="other"), "split 'other' in a shard of 'train'"),
        (lambda b: b.update(study="Smith"), "study 'Smith', which is no hash"),
        (lambda b: b.update(images=None), "its JSON has no list 'images'"),
    ],
)
def test_json_that_departs_from_the_format_is_caught(built, edit, message):
    rewrite(built, edit_json(edit))
    assert any(message in p for p in problems(built.root)), problems(built.root)


def test_a_study_without_json_is_a_problem_and_the_rest_is_read(built):
    shard = built.shards[0]
    path = built.root / shard.file
    raw = path.read_bytes()
    members = [(m.name, raw[m.offset : m.offset + m.size]) for m in walk(path)]
    lost = next(name for name, _ in members if name.partition(".")[2] == "json")
    make_tar(path, [(n, d) for n, d in members if n != lost])
    report = verify([built.root], workers=1)
    assert f"{path}: {lost[:33]}: has no JSON member" in report.problems
    assert report.images == sum(s.images for s in built.shards)


def test_every_study_of_a_shard_is_listed_with_all_that_is_wrong_in_it(built):
    """Malformed JSON and gaze, and damaged images, hide none of the others."""
    shard = built.shards[0]
    path = built.root / shard.file
    raw = path.read_bytes()
    members = {m.name: raw[m.offset : m.offset + m.size] for m in walk(path)}
    one, two, three, four = list(dict.fromkeys(name[:33] for name in members))[:4]
    spoilt = {
        f"{one}.json": b"{",
        f"{two}.json": b"[" * 100_000,
        f"{three}.json": json.dumps(json.loads(members[f"{three}.json"]) | {"split": 7}).encode(),
        f"{three}.00.jpg": members[f"{three}.00.jpg"][:-30],
        f"{three}.gaze.json": b"nothing",
        f"{four}.gaze.json": b'{"00": [[0.5, NaN, 1], [1.5, 0.5, 1], [0.5, 0.5]], "77": []}',
    }
    make_tar(path, list((members | spoilt).items()))
    redress(built)
    report = verify([built.root], workers=1)
    found = [line.removeprefix(f"{path}: ") for line in report.problems]
    for begins in (
        f"{one}: its JSON is malformed: ",
        f"{two}: its JSON is malformed: ",
        f"{three}: its JSON says split 7",
        f"{three} image 0: truncated image",
        f"{three}: its gaze is malformed: ",
        f"{four}: its gaze of image 00 has fixation 0 that is not",
        f"{four}: its gaze of image 00 has fixation 2 that is not",
        f"{four}: its gaze of image 77 is of no image",
    ):
        assert len([line for line in found if line.startswith(begins)]) == 1, (begins, found)
    assert "not the index of" in " ".join(found)  # its offsets have moved
    assert len(found) == 9, found
    assert f"{path}: 1 fixations lie outside their picture" in " ".join(report.notes)
    assert report.images == sum(s.images for s in built.shards) - 1


def test_labels_that_are_no_mapping_are_listed(built):
    rewrite(built, edit_json(lambda b: b["images"][0].update(labels=[1, 0])))
    found = problems(built.root)
    assert (
        len([p for p in found if "image 0 has no valid 'labels'" in p]) == built.shards[0].studies
    )


def test_a_deep_image_that_is_not_shifted_up_is_caught(built):
    def darken(name, data):
        if not name.endswith(".png"):
            return data
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        return cv2.imencode(".png", pixels >> 4)[1].tobytes()

    rewrite(built, darken)
    assert any("its JSON says 12 bits, its pixels use others" in p for p in problems(built.root))


def test_an_image_that_does_not_decode_is_caught(built):
    rewrite(built, lambda name, data: data[:-30] if name.endswith(".00.jpg") else data)
    found = problems(built.root)
    assert len(found) >= built.shards[0].studies
    assert all("truncated image" in p for p in found)


def test_an_index_of_another_tar_is_caught_even_with_right_hashes(built):
    one, two = built.shards[0], built.shards[1]
    (built.root / one.index).write_bytes((built.root / two.index).read_bytes())
    redress(built)
    assert any("not the index of train-000000.tar" in p for p in problems(built.root))


def test_a_patient_in_two_splits_is_caught(built):
    split = {s.split: i for i, s in enumerate(built.shards)}
    patient = load_patient(built, 0)
    rewrite(built, edit_json(lambda b: b.update(patient=patient)), number=split["test"])
    found = problems(built.root)
    assert any(f"leak: patient {patient} is in test of" in p for p in found), found


def test_a_patient_in_two_shards_of_a_split_is_caught(built):
    patient = load_patient(built, 0)
    rewrite(built, edit_json(lambda b: b.update(patient=patient)), number=1)
    assert any(f"patient {patient} is in train-000000.tar and" in p for p in problems(built.root))


def load_patient(manifest, number):
    return f"{read_index(manifest.root / manifest.shards[number].index)[0]['patient'][0]:016x}"


class Album:
    """Named pictures, one a patient, all in one official split, perhaps re-encoded and resized."""

    def __init__(self, names, split, side=None, patients=()):
        self.names, self.split, self.side, self.patients = names, split, side, patients

    def plan(self):
        patients = self.patients or self.names
        rows = zip(self.names, patients, strict=True)
        return [PlannedStudy(str(p), str(n), (n,), self.split) for n, p in rows], []

    def read(self, study):
        pixels = phantom("album", study.images[0], height=160, width=150)
        if self.side is not None:
            pixels = cv2.resize(pixels, (self.side, self.side), interpolation=cv2.INTER_LINEAR)
            pixels = cv2.imdecode(cv2.imencode(".jpg", pixels, [1, 60])[1], cv2.IMREAD_UNCHANGED)
        return ReadStudy((Radiograph(pixels),))


def album(folder, names, split, *, namespace="x", salt="public", salt_file=None, **more):
    arguments = {"names": names, "split": split} | more
    settings = Recipe(
        name=folder.name,
        namespace=namespace,
        salt=salt,
        source=SourceSettings(f"{__name__}.Album", arguments),
    )
    build_recipe(settings, folder, workers=1, salt_file=salt_file)
    return folder


def test_the_same_pixels_in_one_sets_train_and_anothers_val_are_refused(tmp_path):
    one = album(tmp_path / "one", [1, 2, 3], "train", namespace="a")
    two = album(tmp_path / "two", [3, 4], "val", namespace="b")
    for folders in ((one, two), (two, one)):
        found = problems(*folders)
        assert len(found) == 1
        assert found[0].startswith("leak: same pixels: train ")
        assert " and val " in found[0]


def test_a_re_encoded_and_resized_copy_is_refused_too(tmp_path):
    one = album(tmp_path / "one", [1, 2, 3], "train", namespace="a")
    two = album(tmp_path / "two", [3, 4], "test", namespace="b", side=120)
    (found,) = problems(one, two)
    assert found.startswith("leak: same picture (fingerprints ")


def test_sets_that_are_both_trained_on_or_share_nothing_go_together(tmp_path):
    one = album(tmp_path / "one", [1, 2, 3], "train", namespace="a")
    assert problems(one, album(tmp_path / "two", [3, 4], "train", namespace="b")) == []
    assert problems(one, album(tmp_path / "three", [5, 6], "val", namespace="b")) == []


def test_a_patient_in_another_split_of_another_set_is_refused(tmp_path):
    one = album(tmp_path / "one", [1, 2], "train")
    two = album(tmp_path / "two", [7, 8], "val", patients=["1", "9"])
    (found,) = problems(one, two)
    assert found.startswith("leak: patient ")
    other_namespace = album(tmp_path / "three", [7, 8], "val", patients=["1", "9"], namespace="y")
    assert problems(one, other_namespace) == []


def test_two_salts_in_one_namespace_are_refused_as_incomparable(tmp_path):
    one = album(tmp_path / "one", [1, 2], "train", salt=None, salt_file=tmp_path / "s1")
    two = album(tmp_path / "two", [7, 8], "val", salt=None, salt_file=tmp_path / "s2")
    (found,) = problems(one, two)
    assert "another salt" in found


def test_repeats_within_a_set_are_noted_not_refused(tmp_path):
    folder = album(tmp_path / "one", [1, 1, 2], "train", patients=["a", "b", "c"])
    report = verify([folder])
    assert report.ok
    (note,) = report.notes
    assert note.startswith("same pixels: ")


def test_every_problem_of_every_manifest_is_listed(built, tmp_path):
    (built.root / built.shards[0].file).unlink()
    rewrite(load_manifest(built.root), lambda n, d: d[:-30] if n.endswith(".jpg") else d, number=1)
    found = problems(built.root, tmp_path / "none")
    assert any("missing" in p for p in found)
    assert any("truncated image" in p for p in found)
    assert any("no such manifest" in p for p in found)
