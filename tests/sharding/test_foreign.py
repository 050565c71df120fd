import json

import pytest
import webdataset

from lightning_rad.manifest import load_index, load_manifest
from lightning_rad.sharding import index, verify
from lightning_rad.sharding.builder import build_recipe
from lightning_rad.sharding.tar import ShardError
from tests.sharding.phantoms import phantom, recipe, tree
from tests.sharding.test_tar import make_tar


def write_shards(folder, samples, *, name="shard-%06d.tar"):
    """Shards as any user of webdataset writes them: encoder on, three samples a shard."""
    folder.mkdir(exist_ok=True)
    with webdataset.ShardWriter(str(folder / name), maxcount=3, verbose=0) as writer:
        for sample in samples:
            writer.write(sample)


def study(n, **members):
    pixels = phantom("foreign", n)
    return {"__key__": f"p{n // 2}/s{n}", "jpg": pixels, "json": {"who": {"id": n // 2}}} | members


def test_shards_of_stock_webdataset_are_indexed_where_they_lie(tmp_path):
    write_shards(tmp_path / "w", [study(n) for n in range(8)])
    before = {p: p.read_bytes() for p in (tmp_path / "w").glob("*.tar")}
    manifest = index(tmp_path / "w")
    assert manifest == load_manifest(tmp_path / "w")
    assert {p: p.read_bytes() for p in (tmp_path / "w").glob("*.tar")} == before
    assert [s.images for s in manifest.shards] == [3, 3, 2]
    found = load_index(manifest, manifest.of_split("train"))
    assert found.studies["key"].tolist() == [f"p{n // 2}/s{n}".encode() for n in range(8)]
    assert found.studies["patient"].tolist() == [0] * 8
    report = verify([tmp_path / "w"])
    assert (report.problems, report.images) == ([], 8)


@pytest.mark.parametrize(
    "how", [{"patient_pattern": r"^p(\d+)/"}, {"patient_field": "who.id"}], ids=["key", "json"]
)
def test_patients_are_found_in_the_key_or_in_the_json(tmp_path, how):
    write_shards(tmp_path / "w", [study(n) for n in range(8)])
    manifest = index(tmp_path / "w", salt_file=tmp_path / "salt", name="w", **how)
    found = load_index(manifest, manifest.shards).studies["patient"].tolist()
    assert [found.index(p) for p in found] == [0, 0, 2, 2, 4, 4, 6, 6]
    assert 0 not in found
    assert verify([tmp_path / "w"]).problems == []


def test_keys_longer_than_the_index_holds_keep_their_patients_when_verified(tmp_path):
    samples = [study(n) | {"__key__": f"p{n // 2}-" + "k" * 70 + str(n)} for n in range(4)]
    write_shards(tmp_path / "w", samples)
    manifest = index(tmp_path / "w", patient_pattern=r"^p(\d+)-", salt_file=tmp_path / "salt")
    assert len({p for s in manifest.shards for p in patients(manifest, s)}) == 2
    assert verify([tmp_path / "w"]).problems == []


def patients(manifest, shard):
    return load_index(manifest, [shard]).studies["patient"].tolist()


def test_sets_of_one_namespace_under_two_salts_are_noticed(tmp_path):
    for n, folder in enumerate("ab"):
        write_shards(tmp_path / folder, [study(n)])
        salt = tmp_path / f"salt-{folder}"
        index(tmp_path / folder, name="site", patient_field="who.id", salt_file=salt)
    (found,) = verify([tmp_path / "a", tmp_path / "b"]).problems
    assert "same namespace 'site' but another salt" in found
    index(tmp_path / "b", name="site", patient_field="who.id", salt_file=tmp_path / "salt-a")
    assert verify([tmp_path / "a", tmp_path / "b"]).problems == []


def test_the_manifest_of_a_built_set_is_not_replaced(tmp_path):
    built = build_recipe(recipe(), tmp_path / "b", workers=1)
    before = tree(tmp_path / "b")
    with pytest.raises(ValueError, match=r"b/manifest\.json: was written by `shards build`"):
        index(built.root)
    assert tree(tmp_path / "b") == before


def test_a_salt_file_among_the_shards_is_refused(tmp_path):
    write_shards(tmp_path / "w", [study(0)])
    with pytest.raises(ValueError, match=r"salt_file: .* lies in "):
        index(tmp_path / "w", patient_field="who.id", salt_file=tmp_path / "w" / "salt")
    assert not (tmp_path / "w" / "salt").exists()


@pytest.mark.parametrize("suffix", ["npy", "tiff", "webp"])
def test_images_that_readers_cannot_decode_are_refused_by_name(tmp_path, suffix):
    make_tar(tmp_path / "a.tar", [("a.jpg", b"1"), (f"b.{suffix}", b"2")])
    message = rf"a\.tar: image '.*' matches 'b\.{suffix}', .* accepted are jpg, jpeg, png"
    with pytest.raises(ShardError, match=message):
        index(tmp_path, image=rf"jpg|{suffix}")
    assert not (tmp_path / "manifest.json").exists()


def test_index_and_manifest_may_lie_elsewhere_and_splits_follow_the_names(tmp_path):
    write_shards(tmp_path / "w", [study(0), study(1)], name="val-%06d.tar")
    write_shards(tmp_path / "w", [study(2)], name="x-%06d.tar")
    manifest = index(tmp_path / "w", out=tmp_path / "deep" / "o", split="test")
    assert sorted(p.suffix for p in (tmp_path / "w").iterdir()) == [".tar", ".tar"]
    assert [(s.split, s.images) for s in manifest.shards] == [("val", 2), ("test", 1)]
    assert all((manifest.root / s.file).exists() for s in manifest.shards)
    assert verify([tmp_path / "deep" / "o"]).problems == []


def test_samples_without_image_and_other_members_are_counted_not_lost(tmp_path):
    samples = [study(0, **{"mask.png": phantom("m")}), {"__key__": "z", "txt": "no image"}]
    write_shards(tmp_path / "w", samples)
    details = index(tmp_path / "w").details
    assert (details["skipped_samples"], details["ignored_members"]) == (1, 1)
    with pytest.raises(ValueError, match="no member's suffix matches image 'tif'"):
        index(tmp_path / "w", image="tif")


def test_the_products_of_build_can_be_indexed_anew_to_the_same_bytes(tmp_path):
    built = build_recipe(recipe(), tmp_path / "b", workers=1)
    again = index(tmp_path / "b", out=tmp_path / "again", name="phantoms")
    for name in [shard.index for shard in built.shards]:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert again.prevalence == built.prevalence
    assert again.fields == built.fields


def test_a_damaged_tar_is_named_with_its_offset_and_no_manifest_is_written(tmp_path):
    write_shards(tmp_path / "w", [study(n) for n in range(5)])
    last = tmp_path / "w" / "shard-000001.tar"
    last.write_bytes(last.read_bytes()[:3000])
    with pytest.raises(ShardError, match=r"shard-000001\.tar: truncated: .* offset \d+"):
        index(tmp_path / "w")
    assert not (tmp_path / "w" / "manifest.json").exists()


def test_arguments_that_cannot_be_meant_are_named(tmp_path):
    make_tar(tmp_path / "a.tar", [("a.jpg", b"1")])
    for arguments, message in (
        ({"split": "dev"}, "split 'dev'; accepted are train, val, test"),
        ({"patient_pattern": "x("}, "patient_pattern 'x"),
        ({"patient_pattern": "x"}, "put the patient in"),
        ({"patient_pattern": "(x)", "patient_field": "y"}, "not both"),
    ):
        with pytest.raises(ValueError, match=message):
            index(tmp_path, **arguments)
    with pytest.raises(ValueError, match=r"no \*\.tar file"):
        index(tmp_path / "none")


def test_json_of_another_make_is_no_obstacle(tmp_path):
    bodies = [b"[1]", b'{"images": 3}', b'{"images": [7, {"labels": null}], "patient": 5}']
    members = [
        (f"{i}.{s}", d) for i, b in enumerate(bodies) for s, d in (("jpg", b"x"), ("json", b))
    ]
    make_tar(tmp_path / "a.tar", members)
    manifest = index(tmp_path)
    assert manifest.shards[0].studies == 3
    assert json.loads((tmp_path / "manifest.json").read_text())["labels"] == []
