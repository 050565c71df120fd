from pathlib import Path

import pytest
import yaml

from lightning_rad.sharding.recipe import SourceSettings, expand, load_recipe, make_source
from tests.sharding.phantoms import CLASS, Phantoms

GOOD = {
    "name": "n",
    "namespace": "s",
    "source": {"class_path": CLASS, "init_args": {"patients": 3}},
    "splits": {"train": 0.5, "test": 0.5},
    "image": {"short_side": 64, "quality": 80},
    "images_per_shard": 10,
}


def load(tmp_path, **changes) -> object:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(GOOD | changes))
    return load_recipe(path)


def test_a_recipe_says_what_its_file_says_and_its_digest_follows(tmp_path):
    recipe = load(tmp_path)
    assert recipe.image.short_side == 64
    assert make_source(recipe.source, None) == Phantoms(patients=3)
    assert load(tmp_path).digest == recipe.digest
    assert load(tmp_path, image={"short_side": 64, "quality": 81}).digest != recipe.digest
    assert load(tmp_path, labels=["b", "a"]).digest != load(tmp_path, labels=["a", "b"]).digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qualty": 3}, r"r\.yaml: unknown key 'qualty'; accepted are name, namespace, source"),
        ({"image": {"side": 3}}, r"r\.yaml: image: unknown key 'side'; accepted are short_side, q"),
        ({"image": {"quality": 0}}, r"image: 'quality' must be an integer in 1 to 100, not 0"),
        ({"image": {"short_side": "big"}}, r"'short_side' must be an integer"),
        ({"source": {"init_args": {}}}, r"source: missing key 'class_path'"),
        ({"source": "x"}, r"source: expected keys with values, got 'x'"),
        ({"splits": {"train": 0.5}}, r"'splits' must be shares that add up to 1"),
        ({"splits": {"train": 0.5, "dev": 0.5}}, r"'splits' maps train, val, test to shares"),
        ({"splits": {"train": 1.5, "test": -0.5}}, r"'splits' must be shares"),
        ({"salt": "pepper"}, r"'salt' is null \(a secret file\) or 'public', not 'pepper'"),
        ({"images_per_shard": 0}, r"'images_per_shard' must be an integer"),
        ({"images_per_shard": None}, r"'images_per_shard' must be an integer"),
        ({"max_rejected_fraction": "1%"}, r"'max_rejected_fraction' must be a number"),
        ({"max_rejected_fraction": 2}, r"'max_rejected_fraction' must lie in 0 to 1"),
        ({"name": 7}, r"'name' must be a word"),
        ({"labels": ["a", "a"]}, r"'labels' names a finding twice"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_accepted(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path, **changes)
    assert "\n" not in str(error.value)


def test_files_that_are_no_recipe_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.yaml: no such recipe"):
        load_recipe(tmp_path / "none.yaml")
    for text in ("a: [", "- 1", "a: 1\na: 2", "name: ${nothing}"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ValueError, match=r"bad\.yaml: ") as error:
            load_recipe(tmp_path / "bad.yaml")
        assert "\n" not in str(error.value)


def test_a_source_is_checked_before_it_is_made(tmp_path):
    with pytest.raises(ValueError, match=r"class_path 'no\.such\.Thing'"):
        make_source(SourceSettings("no.such.Thing"), None)
    with pytest.raises(ValueError, match="class_path 'Thing'"):
        make_source(SourceSettings("Thing"), None)
    with pytest.raises(ValueError, match="unknown key 'patient'; accepted are patients, seed"):
        make_source(SourceSettings(CLASS, {"patient": 3}), None)
    table = "lightning_rad.sharding.sources.table.TableSource"
    with pytest.raises(ValueError, match="needs --root"):
        make_source(SourceSettings(table, {"csv": "x", "columns": {}}), None)
    with pytest.raises(ValueError, match=r"missing 1 required .*columns"):
        make_source(SourceSettings(table, {"csv": "x"}), tmp_path)


def test_variables_in_paths_are_put_in_and_missing_ones_named(monkeypatch):
    monkeypatch.setenv("RAW", "/data")
    assert expand("$RAW/nih") == Path("/data/nih")
    monkeypatch.delenv("RAW")
    with pytest.raises(ValueError, match=r"\$RAW/nih: an environment variable"):
        expand("$RAW/nih")
