import gc
import json
import tarfile
import warnings

import numpy as np
import pytest
import webdataset

from lightning_rad.manifest import load_index
from lightning_rad.modalities.radiograph import decode_image
from lightning_rad.sharding.builder import build_recipe
from lightning_rad.sharding.encode import fill_depth, shrink
from lightning_rad.sharding.fingerprint import digest_pixels
from lightning_rad.sharding.guard import Guard
from lightning_rad.sharding.plan import PlacedStudy
from lightning_rad.sharding.recipe import ImageSettings
from lightning_rad.sharding.source import PlannedStudy, ReadStudy
from lightning_rad.sharding.write import Bench, make_sample
from tests.sharding.phantoms import Phantoms, recipe


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_recipe(recipe(), tmp_path_factory.mktemp("built"), workers=1)


def read_stock(manifest):
    """What a plain webdataset user gets; webdataset leaves its files to the collector."""
    urls = [str(manifest.root / shard.file) for shard in manifest.shards]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        samples = list(webdataset.WebDataset(urls, shardshuffle=False))
        gc.collect()
    return samples


def test_stock_webdataset_reads_and_groups_every_study(built):
    samples = read_stock(built)
    index = load_index(built, built.shards)
    assert [s["__key__"].encode() for s in samples] == index.studies["key"].tolist()
    for row, sample in enumerate(samples):
        body = json.loads(sample["json"])
        records = index.images[index.images["study"] == row]
        assert len(records) == len(body["images"]) >= 1
        for record, entry in zip(records, body["images"], strict=True):
            data = sample[entry["file"]]
            path = index.files[index.shard_of_study[row]]
            with path.open("rb") as file:
                file.seek(int(record["offset"]))
                assert file.read(int(record["size"])) == data
            assert decode_image(data).pixels.shape == (entry["height"], entry["width"])
        assert sample["__key__"] == f"{body['patient']}-{body['study']}"
        assert sample["txt"].startswith(b"Report of visit")
        assert index.studies["patient"][row] == int(body["patient"], 16)


def test_shards_are_plain_ustar_without_time_or_owner(built):
    for shard in built.shards:
        path = built.root / shard.file
        raw = path.read_bytes()
        with tarfile.open(path) as tar:
            for member in tar:
                assert raw[member.offset + 257 : member.offset + 265] == b"ustar\x0000"
                assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (
                    0,
                    0,
                    0,
                    "",
                    "",
                )


def test_every_image_of_the_source_is_in_a_shard_with_its_depth(built):
    planned = Phantoms().plan()[0]
    originals = {
        digest_pixels(image.pixels): image
        for study in planned
        for image in Phantoms().read(study).images
    }
    found = []
    for sample in read_stock(built):
        for entry in json.loads(sample["json"])["images"]:
            pixels, original = (
                decode_image(sample[entry["file"]]).pixels,
                originals[entry["pixels"]],
            )
            expected = fill_depth(shrink(original.pixels, 32), original.bits)
            tolerance = 0 if original.bits > 8 else 16  # JPEG
            assert pixels.dtype == expected.dtype
            assert np.abs(pixels.astype(int) - expected).max() <= tolerance
            assert (entry["bits"], entry["view"]) == (original.bits, original.view)
            assert entry["labels"] == original.labels
            found.append(entry["pixels"])
    assert sorted(found) == sorted(originals)


class Many:
    """A study of 120 images, a source's record of none, and a report with accents."""

    def read(self, study):
        images = tuple(Phantoms().radiograph((0, 0, 0)) for _ in range(len(study.images)))
        return ReadStudy(images, "Épanchement")


def sample_of(images, rejected, **changes):
    study = PlacedStudy("a" * 16, "b" * 16, "train", PlannedStudy("p", "s", tuple(range(images))))
    bench = Bench(Many(), recipe(image=ImageSettings(8, 50), **changes), None, None)
    return make_sample(study, bench, rejected, Guard(bench.recipe.privacy))


def test_more_than_a_hundred_images_keep_their_order_by_name():
    sample = sample_of(120, [])
    names = [entry["file"] for entry in json.loads(sample["json"])["images"]]
    assert names == sorted(names)
    assert set(names) < set(sample)
    assert sample["txt"].decode() == "Épanchement"
    assert len(json.loads(sample["gaze.json"])) == 120


def test_a_study_that_gives_nothing_is_refused_not_forgotten():
    rejected = []
    assert sample_of(0, rejected) == {}
    assert [r.reason for r in rejected] == ["study without images"]
    assert sample_of(2, rejected, labels=("Other",)) == {}
    assert [r.reason.split(":")[0] for r in rejected[1:]] == ["unknown finding"] * 2
