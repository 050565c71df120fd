"""Many tasks at once build what one command builds, byte for byte."""

import multiprocessing
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from lightning_rad.sharding import build, build_part, merge
from lightning_rad.sharding.ledger import Ledger
from lightning_rad.sharding.part import Part, parse_part
from lightning_rad.sharding.plan import Job
from tests.command import lightning_rad, refused
from tests.sharding.phantoms import recipe, tree

THREE = [Part(number, 3) for number in (1, 2, 3)]


def recipe_file(folder: Path, **changes) -> Path:
    path = folder / f"recipe{len(list(folder.glob('*.yaml')))}.yaml"
    source = {"patients": 20, "broken": 1} | changes.pop("source", {})
    settings = recipe(source=source, images_per_shard=4, max_rejected_fraction=0.5, **changes)
    path.write_text(yaml.safe_dump(asdict(settings)))
    return path


def start(*args) -> multiprocessing.Process:
    """A task in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lightning_rad.sharding.workers"])
    process = context.Process(target=build_part, args=args, kwargs={"workers": 1})
    process.start()
    return process


def noted(out: Path) -> list[Path]:
    """The tars of shards that are known to be complete."""
    notes = (out / ".build").glob("t*-*.json")
    return [tar for note in notes if (tar := out / f"{note.stem}.tar").exists()]


def test_every_shard_is_in_exactly_one_part():
    jobs = tuple(Job(str(n), "train", ()) for n in range(17))
    for of in (1, 3, 17, 40):
        shares = [Part(number, of).share(jobs) for number in range(1, of + 1)]
        assert sorted(job.name for share in shares for job in share) == sorted(j.name for j in jobs)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_parts_at_once_one_of_them_killed_and_begun_again_end_as_one_build(tmp_path):
    slow = recipe_file(tmp_path, source={"pause": 0.05})
    out = tmp_path / "parts"
    tasks = [start(slow, out, part) for part in THREE]
    deadline = time.monotonic() + 100
    while not noted(out):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    tasks[1].kill()
    for task in tasks:
        task.join()
    assert [task.exitcode for task in tasks] == [0, -9, 0]
    assert not (out / "manifest.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in noted(out)}
    with pytest.raises(ValueError, match=r"parts: \d+ of \d+ shards are not built yet \(t"):
        merge(out)
    again = start(slow, out, THREE[1])
    again.join()
    assert again.exitcode == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    merged = merge(out)
    assert merged.digest == build(slow, tmp_path / "whole", workers=1).digest
    assert tree(out) == tree(tmp_path / "whole")
    assert merge(out) == merged


def test_a_merge_names_what_is_missing_and_a_whole_build_may_finish_what_parts_began(tmp_path):
    file, out = recipe_file(tmp_path), tmp_path / "out"
    whole = build(file, tmp_path / "whole", workers=1)
    names = [Path(shard.file).stem for shard in whole.shards]
    build_part(file, out, Part(1, 2), workers=1)
    with pytest.raises(ValueError, match="not built yet") as error:
        merge(out)
    assert names[1] in str(error.value)
    assert names[0] not in str(error.value)
    build(file, out, workers=1)
    assert tree(out) == tree(tmp_path / "whole")


def test_a_part_of_a_finished_set_restores_its_own_lost_shards_alone(tmp_path):
    file, out = recipe_file(tmp_path), tmp_path / "out"
    manifest = build(file, out, workers=1)
    before = tree(out)
    for shard in manifest.shards[:2]:
        (out / shard.file).unlink()
    build_part(file, out, Part(1, 2), workers=1)
    assert (out / manifest.shards[0].file).exists()
    assert not (out / manifest.shards[1].file).exists()
    build_part(file, out, Part(2, 2), workers=1)
    assert {name: data for name, data in tree(out).items() if ".build" not in name} == before


def test_what_is_at_work_is_not_disturbed(tmp_path):
    file, out = recipe_file(tmp_path), tmp_path / "out"
    with Ledger(out, THREE[0]).held():
        with pytest.raises(ValueError, match=r"out: another task of part 1/3 is at work"):
            build_part(file, out, THREE[0], workers=1)
        for whole in (lambda: build(file, out, workers=1), lambda: merge(out)):
            with pytest.raises(ValueError, match=r"out: another build is at work"):
                whole()
        build_part(file, out, THREE[1], workers=1)
        tars = set(out.glob("*.tar"))
        part = out / ".build" / THREE[0].name / "unfinished.part"
        part.touch()
        build_part(file, out, THREE[2], workers=1)
        assert part.exists()
        assert set(out.glob("*.tar")) > tars


def test_tasks_that_do_not_agree_on_the_recipe_do_not_mix(tmp_path):
    first, out = recipe_file(tmp_path, source={"patients": 6}), tmp_path / "out"
    second = recipe_file(tmp_path, source={"patients": 6, "seed": 1})
    build_part(first, out, THREE[0], workers=1)
    for path in (*out.glob("*.tar"), *out.glob("*.idx")):
        path.unlink()
    with pytest.raises(ValueError, match=r"holds plan\.json of a build with another recipe"):
        build_part(second, out, THREE[1], workers=1)


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "a/b", "1/2/3", "-1/2"])
def test_a_part_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match=f"--part {text}"):
        parse_part(text)


def test_the_command_line_builds_parts_and_merges(tmp_path, capsys):
    file, out = str(recipe_file(tmp_path)), str(tmp_path / "out")
    assert "no build was begun here" in refused(capsys, "shards", "merge", out)
    said = refused(capsys, "shards", "build", file, out, "--part", "1/2", "--overwrite", "true")
    assert "--overwrite with --part 1/2" in said
    for part in ("1/2", "2/2"):
        lightning_rad("shards", "build", file, out, "--part", part, "--workers", "1")
        assert f"out: part {part}: " in capsys.readouterr().out
    lightning_rad("shards", "merge", out)
    assert "images in" in capsys.readouterr().out
    lightning_rad("shards", "verify", out)
