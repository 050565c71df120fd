import contextlib
import dataclasses
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from lightning_rad.manifest import Manifest, load_manifest, read_index
from lightning_rad.sharding import build, builder, ledger, steps, write
from lightning_rad.sharding.builder import build_recipe
from lightning_rad.sharding.recipe import Recipe
from lightning_rad.sharding.sources.synthetic import SyntheticSource
from lightning_rad.sharding.verification import verify
from tests.sharding.phantoms import Phantoms, recipe, tree

SCRIPT = """
import signal
import sys
from pathlib import Path
from lightning_rad.sharding import build
if __name__ == "__main__":
    # what starts tests in the background of a shell makes Python ignore Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
    build(Path(sys.argv[1]), Path(sys.argv[2]), workers=int(sys.argv[3]))
"""


def write_recipe(folder: Path, **changes) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(asdict(recipe(**changes))))
    return path


def start_build(folder: Path, recipe_file: Path, out: Path, workers: int) -> subprocess.Popen:
    script = folder / "build.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, script, recipe_file, out, str(workers)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])},
        stderr=subprocess.PIPE,
        text=True,
    )


def killed_build(settings: Recipe, out: Path, seconds: float) -> None:
    """A build in a process of its own, killed with SIGKILL so many seconds after its start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lightning_rad.sharding.workers"])
    process = context.Process(target=build_recipe, args=(settings, out), kwargs={"workers": 1})
    process.start()
    deadline = time.monotonic() + 60
    while not (out / ".build" / "plan.json").exists() and process.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(seconds)
    process.kill()
    process.join()


@pytest.mark.parametrize("seed", range(6))
def test_a_build_killed_at_random_moments_ends_byte_identical_to_an_undisturbed_one(tmp_path, seed):
    settings = recipe(
        source={"patients": 20, "broken": 1}, images_per_shard=6, max_rejected_fraction=0.5
    )
    begun = time.monotonic()
    build_recipe(settings, tmp_path / "whole", workers=1)
    duration = time.monotonic() - begun
    rng = random.Random(seed)
    for _ in range(3):
        killed_build(settings, tmp_path / "killed", rng.random() * duration / 2)
        whole, left = tree(tmp_path / "whole"), tree(tmp_path / "killed")
        assert all(whole[n] == d for n, d in left.items() if n.endswith((".tar", ".idx")))
    build_recipe(settings, tmp_path / "killed", workers=1)
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")


@pytest.mark.slow
def test_a_killed_command_takes_its_workers_along_and_is_continued(tmp_path):
    changes = {"source": {"patients": 25, "pause": 0.02}, "images_per_shard": 6}
    recipe_file, out = write_recipe(tmp_path, **changes), tmp_path / "out"
    process = start_build(tmp_path, recipe_file, out, workers=2)
    wait_for(lambda: list(out.glob("*.tar")))
    family = descendants(process.pid)
    assert len(family) >= 2
    process.kill()
    process.wait()
    process.stderr.close()  # not read to its end: workers that live on would keep it open
    wait_for(lambda: not any(is_alive(pid) for pid in family), seconds=20)
    assert not (out / "manifest.json").exists()
    kept = {p: p.stat().st_mtime_ns for p in map(Path, complete_shards(out))}
    build(recipe_file, out, workers=1)
    build(recipe_file, tmp_path / "whole", workers=1)
    assert tree(out) == tree(tmp_path / "whole")
    assert {p: p.stat().st_mtime_ns for p in kept} == kept


def complete_shards(out: Path) -> list[str]:
    return [str(out / f"{p.stem}.tar") for p in (out / ".build").glob("t*-*.json")]


def is_alive(pid: int) -> bool:
    """Whether a process still runs; one that nobody has reaped does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def descendants(pid: int) -> list[int]:
    """The process' children, their children and so on."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    children = [child for child, parent in parents.items() if parent == pid]
    return children + [d for child in children for d in descendants(child)]


def wait_for(condition, seconds=60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Killed(BaseException):
    """Stands for SIGKILL where the moment must be exact."""


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (write, "index_shard", 2),
        (Path, "replace", 3),
        (Path, "replace", 4),
        (ledger.Ledger, "note", 2),
        (steps, "save_rejected", 1),
        (Manifest, "save", 1),
        (ledger.Ledger, "close", 1),
    ],
)
@pytest.mark.parametrize("after", [False, True])
def test_a_death_just_before_or_after_any_step_is_repaired(
    tmp_path, monkeypatch, owner, name, call, after
):
    settings = recipe(source={"patients": 6, "broken": 1}, max_rejected_fraction=0.5)
    build_recipe(settings, tmp_path / "whole", workers=1)
    original, calls = getattr(owner, name), []

    def dying(*args, **kwargs):
        calls.append(1)
        if len(calls) < call:
            return original(*args, **kwargs)
        if after:
            original(*args, **kwargs)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(Killed):
            build_recipe(settings, tmp_path / "out", workers=1)
    build_recipe(settings, tmp_path / "out", workers=1)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_the_number_of_workers_changes_no_byte_and_the_result_verifies(tmp_path):
    settings = recipe()
    for workers in (1, 2):
        build_recipe(settings, tmp_path / str(workers), workers=workers)
    assert tree(tmp_path / "1") == tree(tmp_path / "2")
    assert verify([tmp_path / "1"]).problems == []
    assert {"manifest.json", "rejected.jsonl"} < set(tree(tmp_path / "1"))


def test_a_manifest_counts_what_the_shards_hold(tmp_path):
    manifest = build_recipe(recipe(), tmp_path, workers=1)
    assert manifest == load_manifest(tmp_path)
    assert manifest.fields == ("report", "gaze", "boxes")
    assert manifest.labels == ("Effusion", "Mass")
    assert {s.split for s in manifest.shards} == set(manifest.prevalence)
    for split, findings in manifest.prevalence.items():
        images = sum(s.images for s in manifest.shards if s.split == split)
        assert images > 0
        assert all(sum(counts.values()) == images for counts in findings.values())
        assert findings["Effusion"]["unknown"] == 0
    assert sum(f["Mass"]["unknown"] for f in manifest.prevalence.values()) > 0
    assert sum(manifest.details["views"].values()) == sum(s.images for s in manifest.shards)


def test_a_finished_folder_is_left_alone(tmp_path):
    build_recipe(recipe(), tmp_path, workers=1)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    build_recipe(recipe(), tmp_path, workers=1)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("loss", ["tar", "index", "cut"])
def test_files_that_a_finished_build_lost_are_made_again_and_no_others(tmp_path, loss):
    settings = recipe(source={"broken": 2}, max_rejected_fraction=0.5)
    manifest = build_recipe(settings, tmp_path, workers=1)
    before = tree(tmp_path)
    shard = manifest.shards[1]
    if loss == "cut":
        (tmp_path / shard.file).write_bytes(before[shard.file][:-512])
    else:
        (tmp_path / (shard.file if loss == "tar" else shard.index)).unlink()
    kept = [p for p in tmp_path.iterdir() if p.is_file() and p.stem != Path(shard.file).stem]
    times = {p: p.stat().st_mtime_ns for p in kept}
    assert build_recipe(settings, tmp_path, workers=1) == manifest
    assert tree(tmp_path) == before
    assert {p: p.stat().st_mtime_ns for p in kept} == times


def test_a_lost_shard_whose_images_have_changed_since_is_refused(tmp_path, monkeypatch):
    out = tmp_path / "out"
    manifest = build_recipe(recipe(), out, workers=1)
    lost = out / manifest.shards[0].file
    lost.unlink()
    monkeypatch.setattr(Phantoms, "radiograph", darker(Phantoms.radiograph))
    with pytest.raises(ValueError, match=r"tar: lost, and its images are no longer those of the"):
        build_recipe(recipe(), out, workers=1)
    assert not lost.exists()
    assert load_manifest(out) == manifest
    build_recipe(recipe(), out, workers=1, overwrite=True)
    build_recipe(recipe(), tmp_path / "fresh", workers=1)
    assert tree(out) == tree(tmp_path / "fresh")


def darker(original):
    def radiograph(self, record):
        image = original(self, record)
        return dataclasses.replace(image, pixels=image.pixels // 2)

    return radiograph


def test_overwriting_follows_changed_image_files_under_an_unchanged_recipe(tmp_path, monkeypatch):
    before = build_recipe(recipe(), tmp_path, workers=1)
    monkeypatch.setattr(Phantoms, "radiograph", darker(Phantoms.radiograph))
    assert build_recipe(recipe(), tmp_path, workers=1).digest == before.digest
    assert build_recipe(recipe(), tmp_path, workers=1, overwrite=True).digest != before.digest


def test_a_newer_synthetic_source_does_not_take_old_shards_for_its_own(tmp_path, monkeypatch):
    builder.synthesize(tmp_path, patients=2, size=32, workers=1)
    monkeypatch.setattr(SyntheticSource, "version", SyntheticSource.version + 1)
    with pytest.raises(ValueError, match=r"holds manifest\.json of a build with another recipe"):
        builder.synthesize(tmp_path, patients=2, size=32, workers=1)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_recipes_is_not_filled_with_shards(tmp_path, overwrite):
    write_recipe(tmp_path)
    with pytest.raises(ValueError, match=rf"{tmp_path}: a folder of recipes \(recipe.yaml\)"):
        build_recipe(recipe(), tmp_path, workers=1, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_a_recipe_kept_beside_its_shards_does_not_hinder_the_next_build(tmp_path):
    first = build_recipe(recipe(), tmp_path, workers=1)
    write_recipe(tmp_path)
    assert build_recipe(recipe(), tmp_path, workers=1, overwrite=True).digest == first.digest


def test_a_salt_file_in_the_output_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"salt_file: .* lies in "):
        build_recipe(recipe(salt=None), tmp_path / "o", workers=1, salt_file=tmp_path / "o" / "s")
    assert not (tmp_path / "o").exists()


def test_another_recipe_source_or_salt_in_the_same_folder_is_refused_until_overwritten(tmp_path):
    out = tmp_path / "out"
    build_recipe(recipe(), out, workers=1)
    before = tree(out)
    other = recipe(source={"seed": 1})
    for settings, salt in ((other, None), (recipe(salt=None), tmp_path / "salt")):
        with pytest.raises(ValueError, match=r"out: holds manifest\.json of a build with another"):
            build_recipe(settings, out, workers=1, salt_file=salt)
        assert tree(out) == before
    build_recipe(other, out, workers=1, overwrite=True)
    build_recipe(other, tmp_path / "fresh", workers=1)
    assert tree(out) == tree(tmp_path / "fresh")


def test_two_builds_in_one_folder_do_not_meet(tmp_path):
    with (
        ledger.Ledger(tmp_path).held(),
        pytest.raises(ValueError, match="another build is at work in this folder"),
    ):
        build_recipe(recipe(), tmp_path, workers=1)


def test_too_many_rejections_fail_the_build_before_the_manifest_and_are_listed(tmp_path):
    with pytest.raises(ValueError, match=r"rejected beside \d+ images .* max_rejected_fraction 1"):
        build_recipe(recipe(source={"broken": 3}), tmp_path, workers=1)
    assert not (tmp_path / "manifest.json").exists()
    lines = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert {line["reason"] for line in lines} == {"damaged image: on purpose"}


def test_rejections_below_the_limit_are_counted_by_kind(tmp_path):
    settings = recipe(source={"broken": 2}, max_rejected_fraction=0.5)
    manifest = build_recipe(settings, tmp_path, workers=1)
    lines = (tmp_path / "rejected.jsonl").read_text().splitlines()
    assert manifest.details["rejected"] == {"damaged image": len(lines)}
    assert len(lines) > 1
    assert verify([tmp_path]).problems == []


def test_no_image_at_all_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no image is left"):
        build_recipe(recipe(source={"broken": 99}, max_rejected_fraction=1.0), tmp_path, workers=1)


def test_an_unlisted_finding_is_refused_with_its_image(tmp_path):
    settings = recipe(labels=("Effusion",), max_rejected_fraction=1.0)
    with pytest.raises(ValueError, match="no image is left"):
        build_recipe(settings, tmp_path, workers=1)
    assert "unknown finding: Mass" in (tmp_path / "rejected.jsonl").read_text()


def test_the_salt_changes_every_hash_and_no_output_holds_an_identifier(tmp_path):
    for salt in ("a", "b"):
        build_recipe(recipe(salt=None), tmp_path / salt, workers=1, salt_file=tmp_path / f"s{salt}")
        files = tree(tmp_path / salt)
        assert not any(
            b"Smith" in data or b"visit-" in data.replace(b"Report of visit", b"")
            for data in files.values()
        )
        assert not any(b"pause" in data for data in files.values())
        secret = (tmp_path / f"s{salt}").read_text().strip()
        assert not any(secret.encode() in d or bytes.fromhex(secret) in d for d in files.values())
    one, two = (
        {
            key
            for shard in load_manifest(tmp_path / s).shards
            for key in keys_of(tmp_path / s, shard)
        }
        for s in ("a", "b")
    )
    assert one
    assert not one & two


def keys_of(folder, shard):
    return read_index(folder / shard.index)[0]["key"].tolist()


@pytest.mark.slow
def test_ctrl_c_ends_promptly_with_one_line_and_the_next_run_continues(tmp_path):
    recipe_file = write_recipe(tmp_path, source={"patients": 25, "pause": 0.2}, images_per_shard=6)
    out = tmp_path / "out"
    process = start_build(tmp_path, recipe_file, out, workers=2)
    wait_for(lambda: list(out.glob("*.tar")))
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - begun < 20
    assert process.returncode == 130
    assert len(errors.strip().splitlines()) == 1
    assert "run the same command again to continue" in errors
    build(recipe_file, out, workers=1)
    assert verify([out]).problems == []
