"""Every place of finished shards in which something of the source could stand is searched."""

import dataclasses
import io
import json
import tarfile

import numpy as np
import pytest
import yaml

from lightning_rad.manifest import load_manifest
from lightning_rad.sharding import build, search
from lightning_rad.sharding.tar import walk
from tests.command import lightning_rad, refused
from tests.sharding.phantoms import write_csv, write_images

PATIENTS = ("10000032", "Doe^Jane", "A-771-B", "12")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A set whose rows say a lot, its recipe and its shards."""
    root = tmp_path_factory.mktemp("privacy")
    rows = [
        {
            "Path": f"train/{patient}/study{n}/img-{n}40031.png",
            "PatientID": patient,
            "Study": f"2019-03-0{n + 1}",
            "View": "PA",
            "Report": f"Heart normal, 2.{n} cm. No effusion.",
            "Phone": f"555-01{n}-4711",
        }
        for n, patient in enumerate(PATIENTS)
    ]
    rows.append(rows[0] | {"Path": "train/lost/one-998877.png", "View": "nobody knows"})
    write_csv(root / "raw/list.csv", rows)
    write_images(root / "raw", [row["Path"] for row in rows])
    recipe = {
        "name": "privacy",
        "namespace": "tests",
        "salt": "public",
        "max_rejected_fraction": 0.9,
        "source": {
            "class_path": "lightning_rad.sharding.sources.table.TableSource",
            "init_args": {
                "csv": "list.csv",
                "columns": {
                    "image": "Path",
                    "patient": "PatientID",
                    "study": "Study",
                    "view": "View",
                    "report": "Report",
                },
            },
        },
    }
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    build(root / "recipe.yaml", root / "out", root=root / "raw", workers=1)
    return root


@pytest.fixture
def copied(made, tmp_path):
    for path in (made / "out").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return made, tmp_path


def searched(root, out, **how):
    return search([out], root / "recipe.yaml", root=root / "raw", **how)


def test_what_was_built_holds_nothing_of_its_source(made):
    report = searched(made, made / "out", columns=["Phone"])
    assert report.problems == []
    assert any(note.startswith("privacy: 21 identifiers") for note in report.notes), report.notes
    assert any("1 values not looked for: fewer than 4" in note for note in report.notes)


def tar_of(folder):
    return next(iter(sorted(folder.glob("*.tar"))))


def rewritten(folder, change, names=lambda name: name, owner=""):
    """The first tar with its members changed."""
    path = tar_of(folder)
    raw = path.read_bytes()
    members = [(m.name, raw[m.offset : m.offset + m.size]) for m in walk(path)]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(names(name))
            changed = change(name, data)
            info.size, info.uname = len(changed), owner
            tar.addfile(info, io.BytesIO(changed))


def edited(key, value):
    def change(name, data):
        if not name.endswith(".json"):
            return data
        return json.dumps(json.loads(data) | {key: value}).encode()

    return change


def jpeg_end(name, data):
    return data + b" Doe^Jane " if name.endswith("jpg") else data


def in_pixels(name, data):
    middle = len(data) // 2
    return data[:middle] + b"\0p10000032.x\0" + data[middle:] if name.endswith("jpg") else data


def details(folder, value):
    path = folder / "manifest.json"
    body = json.loads(path.read_text())
    manifest = load_manifest(folder)
    manifest.details["licence"] = value
    manifest.save()
    assert body != json.loads(path.read_text())


LEAKS = {
    "a report": lambda f: rewritten(
        f, lambda n, d: d + b" of 10000032" if n.endswith("txt") else d
    ),
    "a member of JSON": lambda f: rewritten(f, edited("source", "raw/Doe^Jane/x")),
    "a number in JSON": lambda f: rewritten(f, edited("who", 10000032)),
    "a key of JSON": lambda f: rewritten(f, edited("10000032", None)),
    "a name with an escape in JSON": lambda f: rewritten(f, edited("x", "Doe \u2013 Jane")),
    "the name of a member": lambda f: rewritten(
        f, lambda _, d: d, lambda name: name.replace(".txt", "-p10000032.txt")
    ),
    "the owner of members": lambda f: rewritten(f, lambda _, d: d, owner="Doe Jane"),
    "the end of an image": lambda f: rewritten(f, jpeg_end),
    "the pixels of an image": lambda f: rewritten(f, in_pixels),
    "a date of a study": lambda f: rewritten(f, edited("date", "2019/03/01")),
    "a file name in the report": lambda f: rewritten(
        f, lambda n, d: d + b" img-140031.png" if n.endswith("txt") else d
    ),
    "the manifest": lambda f: details(f, "of 10000032"),
    "the list of what was refused": lambda f: (f / "rejected.jsonl").write_text(
        '{"where": "one-998877.png", "reason": "bad"}\n'
    ),
    "a file beside the shards": lambda f: (f / "list.csv").write_text("A-771-B,1\n"),
    "the name of a file": lambda f: (f / "p10000032.log").write_text(""),
    "a folder": lambda f: ((f / "A-771-B").mkdir(), (f / "A-771-B/x").write_text("")),
    "the index": lambda f: next(f.glob("*.idx")).write_bytes(index_with(f)),
}


def index_with(folder):
    path = next(folder.glob("*.idx"))
    data = bytearray(path.read_bytes())
    studies = data.index(b"\n") + 1
    data[studies : studies + 12] = b"-Doe-Jane--x"
    return bytes(data)


@pytest.mark.parametrize("where", LEAKS)
def test_an_identifier_in(where, copied):
    made, out = copied
    LEAKS[where](out)
    found = searched(made, out).problems
    assert found
    assert all(p.startswith("privacy: ") and str(out) in p for p in found)
    assert any("list.csv line" in p for p in found), found
    for value in ("10000032", "doe", "jane", "771", "998877", "140031", "2019"):
        assert value not in "\n".join(found).replace(str(out), "").lower()


def test_a_further_column_is_looked_for_where_it_is_asked_for(copied):
    made, out = copied
    rewritten(out, lambda n, d: d + b" call 555-010-4711" if n.endswith("txt") else d)
    assert searched(made, out).problems == []
    assert any("holds the Phone of" in p for p in searched(made, out, columns=["Phone"]).problems)


def test_an_identifier_that_is_everywhere_is_one_line(copied):
    made, out = copied
    rewritten(out, lambda n, d: d + b" Doe Jane" if n.endswith("txt") else d)
    (line,) = searched(made, out).problems
    assert "and in 3 other places" in line


def test_numbers_of_the_format_are_no_identifiers(copied):
    """Sizes, offsets and counts may be the number of a patient, by chance."""
    made, out = copied
    size = tar_of(out).stat().st_size
    rewritten(out, lambda _, d: d)
    write_csv(out / "raw/list.csv", [{"Path": "a.png", "PatientID": 10240001, "Study": size}])
    recipe = yaml.safe_load((made / "recipe.yaml").read_text())
    columns = recipe["source"]["init_args"]["columns"]
    for column in ("view", "report"):
        del columns[column]
    (out / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (out / "raw/a.png").write_bytes(b"")
    manifest = load_manifest(out)
    shards = (dataclasses.replace(manifest.shards[0], bytes=10240001), *manifest.shards[1:])
    dataclasses.replace(manifest, shards=shards).save()
    report = search([out], out / "recipe.yaml", root=out / "raw")
    assert not any("manifest.json" in p or ".tar" in p for p in report.problems)


def test_the_command_says_what_it_looked_for_and_ends_with_1_on_a_leak(copied, capsys):
    made, out = copied
    how = ("--privacy", str(made / "recipe.yaml"), "--root", str(made / "raw"))
    lightning_rad("shards", "verify", str(out), *how)
    assert "note: privacy: 17 identifiers of the source looked for" in capsys.readouterr().out
    (out / "list.csv").write_text("A-771-B,1\n")
    with pytest.raises(SystemExit) as ended:
        lightning_rad("shards", "verify", str(out), *how)
    assert ended.value.code == 1
    assert "holds the patient of list.csv line 4" in capsys.readouterr().out
    said = refused(capsys, "shards", "verify", str(out), *how, "--columns", '["Fone"]')
    assert "no column 'Fone'" in said
    assert "--privacy" in refused(capsys, "shards", "verify", str(out), "--root", str(out))


def test_pixels_that_spell_a_short_value_by_chance_are_no_leak(copied):
    made, out = copied
    noise = np.random.default_rng(0).bytes(1 << 20) + b"\0A-771-B\0"
    rewritten(out, lambda n, d: d[:-2] + noise + d[-2:] if n.endswith("jpg") else d)
    assert searched(made, out).problems == []
