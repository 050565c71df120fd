import json

import cv2
import numpy as np
import pytest

from lightning_rad.modalities.report import NOTE_END, parse_report
from lightning_rad.sharding.builder import build_recipe
from lightning_rad.sharding.identity import Identity
from lightning_rad.sharding.plan import make_plan
from lightning_rad.sharding.recipe import Recipe, SourceSettings
from lightning_rad.sharding.sources.table import TableSource
from tests.sharding.phantoms import phantom, tree, write_csv, write_images

COLUMNS = {"image": "file", "patient": "who", "study": "visit", "view": "pos", "report": "text"}
LABELS = {"column": "found", "findings": ["Mass", "Edema"]}


def row(file, who="Smith", visit="1", pos="PA", text="", found="Mass", **more):
    cells = {"file": file, "who": who, "visit": visit, "pos": pos, "text": text, "found": found}
    return cells | more


def source(folder, rows, *, images=True, columns=COLUMNS, **settings):
    write_csv(folder / "table.csv", rows)
    if images:
        write_images(folder, {r["file"] for r in rows if r["file"]})
    return TableSource(folder, csv="table.csv", columns=columns, **settings)


def reasons(rejected):
    return {r.where: r.reason for r in rejected}


def test_rows_of_a_visit_are_one_study_in_the_order_of_the_table(tmp_path):
    rows = [
        row("a.png", visit="2"),
        row("b.png", pos="L", text="Clear."),
        row("c.png", visit="2", text="Worse."),
        row("d.png", who="Jones"),
        row("e.png", text="Clear."),
    ]
    table = source(tmp_path, rows, views={"L": "LATERAL"}, labels=LABELS)
    planned, rejected = table.plan()
    assert rejected == []
    groups = [(s.patient, s.study, [i.file for i in s.images]) for s in planned]
    assert groups == [
        ("Smith", "2", ["a.png", "c.png"]),
        ("Smith", "1", ["b.png", "e.png"]),
        ("Jones", "1", ["d.png"]),
    ]
    read = table.read(planned[1])
    assert [i.view for i in read.images] == ["LATERAL", "PA"]
    assert read.images[0].labels == {"Mass": 1, "Edema": 0}
    assert (read.images[0].pixels == phantom("b.png")).all()
    assert read.report == "Clear."
    assert table.read(planned[0]).report == "Worse."


def test_a_text_that_differs_in_marks_case_or_spaces_alone_is_kept_once(tmp_path):
    texts = ["Seen by XXXX.", "Seen by ___.", "seen  by [**Name**].", "Worse.", ""]
    rows = [row(f"{i}.png", text=text) for i, text in enumerate(texts)]
    table = source(tmp_path, rows)
    assert table.read(table.plan()[0][0]).report == f"Seen by XXXX.{NOTE_END}Worse."


NOTES = ["Supine.\n\nLeft effusion.", "COMPARISON: None.", "Worse.", "FINDINGS: Edema.", "A mass."]


@pytest.mark.parametrize("order", [NOTES, NOTES[::-1]])
def test_every_note_of_a_study_is_read_as_it_would_be_alone(tmp_path, order):
    table = source(tmp_path, [row(f"{i}.png", text=text) for i, text in enumerate(order)])
    report = table.read(table.plan()[0][0]).report
    alone = [parse_report(note).text for note in order]
    assert sorted(alone) == ["", "A mass.", "Edema.", "Left effusion.", "Worse."]
    assert parse_report(report).text == " ".join(filter(None, alone))


def test_shards_of_a_table_made_when_notes_were_not_kept_apart_are_not_taken_for_finished(
    tmp_path, monkeypatch
):
    table = source(tmp_path, [row("a.png"), row("b.png", who="Jones")])
    recipe = Recipe(name="set", namespace="here", source=SourceSettings("x", {}))
    now = make_plan(table, recipe, Identity(bytes(32), "here")).digest
    monkeypatch.delattr(TableSource, "version")
    assert make_plan(table, recipe, Identity(bytes(32), "here")).digest != now


def test_without_a_visit_every_image_is_a_study_whatever_its_line(tmp_path):
    rows = [row("a.png", visit=""), row("b.png", visit=""), row("c.png", visit="7")]
    names = [s.study for s in source(tmp_path, rows).plan()[0]]
    assert len(set(names)) == 3
    assert names == [s.study for s in source(tmp_path, rows[::-1]).plan()[0]][::-1]
    single = {"image": "file", "patient": "who"}
    assert len(source(tmp_path, [row("a.png"), row("b.png")], columns=single).plan()[0]) == 2
    several = COLUMNS | {"study": ["visit", "text"]}
    rows = [row("a.png", text="x"), row("b.png", text="y"), row("c.png", text="x")]
    assert [len(s.images) for s in source(tmp_path, rows, columns=several).plan()[0]] == [2, 1]


def test_what_is_wrong_with_a_row_is_said_with_its_line_and_without_its_names(tmp_path):
    rows = [
        row("fine.png"),
        row("nobody.png", who=" "),
        row(""),
        row("fine.png", who="Jones"),
        row("odd.png", found="Mass|Bone"),
        row("both.png", found="No Finding|Mass"),
    ]
    planned, rejected = source(tmp_path, rows, labels=LABELS).plan()
    assert [len(s.images) for s in planned] == [1]
    assert reasons(rejected) == {
        "table.csv line 3": "row without patient",
        "table.csv line 4": "row without image",
        "table.csv line 5": "duplicate key: the same image as table.csv line 2",
        "table.csv line 6": "unknown finding: in column 'found'",
        "table.csv line 7": "contradicting labels: nothing found, and 'Mass'",
    }


def test_every_kind_of_bad_file_becomes_a_rejection_and_the_rest_is_read(tmp_path):
    names = ["good.png", "missing.png", "empty.png", "cut.jpg", "text.png", "colour.png"]
    table = source(tmp_path, [row(n) for n in names])
    (tmp_path / "missing.png").unlink()
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:-60])
    (tmp_path / "text.png").write_text("<html>")
    write_images(tmp_path, [])
    (tmp_path / "colour.png").write_bytes(colour_png())
    ((study,), _) = table.plan()
    read = table.read(study)
    assert len(read.images) == 1
    kinds = {where: reason.split(":")[0] for where, reason in reasons(read.rejected).items()}
    assert kinds == {
        "table.csv line 3": "missing file",
        "table.csv line 4": "empty file",
        "table.csv line 5": "truncated image",
        "table.csv line 6": "not an image",
        "table.csv line 7": "wrong channels",
    }


def colour_png():
    return cv2.imencode(".png", np.dstack([phantom(i) for i in range(3)]))[1].tobytes()


def test_boxes_go_to_their_images_and_bad_ones_to_the_rejections(tmp_path):
    def box(image, label="Mass", x=1, y=2, w=3, h=4):
        return {"image": image, "label": label, "x": x, "y": y, "w": w, "h": h}

    boxes = [
        box("a.png"),
        box("a.png", x=9),
        box("b.png", w=0),
        box("b.png", h="?"),
        box("z.png"),
        box("b.png", label=""),
        box("b.png", x="nan"),
    ]
    write_csv(tmp_path / "boxes.csv", boxes)
    table = source(tmp_path, [row("a.png"), row("b.png")], boxes={"csv": "boxes.csv"})
    ((study,), rejected) = table.plan()
    assert [[b.x for b in image.boxes] for image in study.images] == [[1, 9], []]
    kinds = {where: reason.split(":")[0] for where, reason in reasons(rejected).items()}
    assert kinds == {
        "boxes.csv line 4": "degenerate box",
        "boxes.csv line 5": "damaged box",
        "boxes.csv line 6": "box without image",
        "boxes.csv line 7": "damaged box",
        "boxes.csv line 8": "degenerate box",
    }


def test_official_splits_by_column_override_the_hash_and_conflicts_are_refused(tmp_path):
    rows = [
        row("a.png", who="A", set="tr"),
        row("b.png", who="B", set="te"),
        row("c.png", who="C", set="any"),
        row("d.png", who="D", set="tr"),
        row("e.png", who="D", set="te"),
        row("f.png", who="E", set="?"),
    ]
    splits = {"column": "set", "values": {"train": ["tr"], "test": ["te"]}, "by_hash": ["any"]}
    planned, rejected = source(tmp_path, rows, splits=splits).plan()
    assert {s.patient: s.split for s in planned} == {"A": "train", "B": "test", "C": None}
    assert reasons(rejected) == {
        "table.csv line 5": "patient in two official splits: test and train",
        "table.csv line 6": "patient in two official splits: test and train",
        "table.csv line 7": "unknown split: in column 'set'",
    }


@pytest.mark.parametrize(("of", "names"), [("patient", "B\nX\n"), ("image", "b.png\nx.png\n")])
def test_official_splits_by_list_of_patients_or_images(tmp_path, of, names):
    (tmp_path / "test.txt").write_text("\ufeff" + names)
    rows = [row("sub/a.png", who="A"), row("sub/b.png", who="B")]
    table = source(tmp_path, rows, splits={"lists": {"test": "test.txt"}, "of": of})
    assert {s.patient: s.split for s in table.plan()[0]} == {"A": None, "B": "test"}


def test_images_are_looked_for_in_every_folder_that_matches(tmp_path):
    write_images(tmp_path / "images_001" / "images", ["a.png"])
    write_images(tmp_path / "images_002" / "images", ["b.png"])
    rows = [row("a.png"), row("b.png"), row("c.png")]
    table = source(tmp_path, rows, images=False, folders=["images_*/images"])
    read = table.read(table.plan()[0][0])
    assert (len(read.images), [r.reason for r in read.rejected]) == (2, ["missing file"])


def test_bits_of_deep_images_come_from_their_column(tmp_path):
    rows = [row("a.png", depth="12"), row("b.png", depth=""), row("c.png", depth="17")]
    columns = COLUMNS | {"bits": "depth"}
    table = source(tmp_path, rows, images=False, columns=columns)
    write_images(tmp_path, ["a.png", "b.png"], dtype=np.uint16, top=4000)
    ((study,), rejected) = table.plan()
    assert [i.bits for i in table.read(study).images] == [12, 16]
    reason = "bits out of range: in column 'depth', accepted are 1 to 16"
    assert [r.reason for r in rejected] == [reason]


def test_a_view_is_a_short_code_or_a_word_of_the_recipe_and_else_refuses_its_row(tmp_path):
    words = ["PA", "LL-2 X", "", "lateral", "Jane Doe 1971", "A" * 17]
    rows = [row(f"{i}.png", pos=word) for i, word in enumerate(words)]
    table = source(tmp_path, rows, images=False, views={"lateral": "Side view"})
    ((study,), rejected) = table.plan()
    assert [image.view for image in study.images] == ["PA", "LL-2 X", "", "Side view"]
    reason = "unknown view: in column 'pos', neither a short code nor in 'views'"
    assert reasons(rejected) == {"table.csv line 6": reason, "table.csv line 7": reason}


IDENTIFIER = "Jane Doe 1971"


@pytest.mark.parametrize("findings", [LABELS, {"columns": {"Mass": "mass"}}])
def test_a_shifted_cell_in_any_column_reaches_no_output(tmp_path, findings):
    clean = row("0.png", depth="8", set="tr", mass="1")
    shifted = [{c: IDENTIFIER} for c in ("found", "mass", "depth", "set", "pos")]
    rows = [clean] + [clean | {"file": f"{i}.png"} | cell for i, cell in enumerate(shifted, 1)]
    write_csv(tmp_path / "raw" / "table.csv", rows)
    write_images(tmp_path / "raw", [r["file"] for r in rows])
    box = {"image": "0.png", "label": "Mass", "x": 1, "y": 2, "w": 3, "h": 4}
    spoilt = [box | {c: IDENTIFIER} for c in ("image", "x", "h")] + [box | {"w": "-19710203"}]
    spoilt += [box | {"label": IDENTIFIER, "x": 900}]  # outside: refused when it is encoded
    write_csv(tmp_path / "raw" / "boxes.csv", spoilt)
    arguments = {
        "csv": "table.csv",
        "columns": COLUMNS | {"bits": "depth"},
        "labels": findings,
        "boxes": {"csv": "boxes.csv"},
        "splits": {"column": "set", "values": {"train": ["tr"]}},
    }
    kind = "lightning_rad.sharding.sources.table.TableSource"
    settings = SourceSettings(kind, arguments)
    recipe = Recipe("t", "t", settings, salt="public", max_rejected_fraction=0.95)
    build_recipe(recipe, tmp_path / "o", root=tmp_path / "raw", workers=1)
    files = tree(tmp_path / "o")
    assert len(files["rejected.jsonl"].splitlines()) == 9
    for word in (b"Jane", b"19710203"):
        assert not [name for name, data in files.items() if word in data]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"columns": COLUMNS | {"patient": "patient"}},
            r"table\.csv: no column 'patient'; there a",
        ),
        (
            {"columns": COLUMNS | {"veiw": "x"}},
            r"columns: unknown key 'veiw'; accepted are image, p",
        ),
        ({"labels": {"column": "lab", "findings": []}}, r"no column 'lab'; there are file, who"),
        ({"labels": {"findings": []}}, r"labels: give 'column' .* or 'columns'"),
        ({"labels": LABELS | {"blank": "no"}}, r"labels: 'blank' is 'no'; accepted are"),
        ({"boxes": {"csv": "none.csv"}}, r"none\.csv: No such file"),
        ({"splits": {"column": "set", "values": {"dev": ["x"]}}}, r"unknown split 'dev'; accepted"),
        ({"splits": {}}, None),
        ({"splits": {"of": "image"}}, r"splits: give either 'column' with 'values', or 'lists'"),
        ({"splits": {"lists": {"test": "table.csv"}, "of": "x"}}, r"no column 'x'; there are file"),
        ({"splits": {"lists": {"test": "none.txt"}}}, r"none\.txt: No such file"),
    ],
)
def test_settings_that_do_not_fit_the_table_are_one_line_errors(tmp_path, settings, message):
    if message is None:
        source(tmp_path, [row("a.png")], **settings).plan()
        return
    with pytest.raises(ValueError, match=message) as error:
        source(tmp_path, [row("a.png")], **settings).plan()
    assert "\n" not in str(error.value)


def test_no_file_name_identifier_or_folder_reaches_any_output(tmp_path):
    rows = [row(f"secret-{i}.png", who=f"Patient{i}", visit=f"V{i}") for i in range(6)]
    rows += [row("secret-9.png", who=""), row("secret-1.png", who="Patient1", found="Bone")]
    source(tmp_path / "rawfolder", rows)
    (tmp_path / "rawfolder" / "secret-2.png").write_bytes(b"junk")
    (tmp_path / "rawfolder" / "secret-3.png").unlink()
    settings = SourceSettings(
        "lightning_rad.sharding.sources.table.TableSource",
        {"csv": "table.csv", "columns": COLUMNS, "labels": LABELS},
    )
    recipe = Recipe(name="t", namespace="t", source=settings, max_rejected_fraction=0.6)
    build_recipe(
        recipe, tmp_path / "o", root=tmp_path / "rawfolder", workers=1, salt_file=tmp_path / "s"
    )
    files = tree(tmp_path / "o")
    for word in (b"secret", b"Patient", b"V1", b"rawfolder", b'.png"'):
        assert not [name for name, data in files.items() if word in data], word
    lines = [json.loads(line) for line in files["rejected.jsonl"].splitlines()]
    assert sorted(line["where"] for line in lines) == [f"table.csv line {n}" for n in (4, 5, 8, 9)]


def test_reports_of_files_are_read_once_a_study_and_a_missing_one_is_listed(tmp_path):
    columns = {"image": "file", "patient": "who", "study": "visit"}
    columns |= {"report_file": ["notes/{visit}.txt", "{visit}.txt"]}
    rows = [row("a.png"), row("b.png"), row("c.png", visit="2"), row("d.png", visit="3")]
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "1.txt").write_text("Clear.\n")
    (tmp_path / "2.txt").write_bytes(b"\xff\xfe")
    table = source(tmp_path, rows, columns=columns)
    first, second, third = (table.read(study) for study in table.plan()[0])
    assert (len(first.images), first.report, first.rejected) == (2, "Clear.\n", ())
    assert (len(second.images), second.report) == (1, None)
    assert reasons(second.rejected) == {"table.csv line 4": "damaged report: not UTF-8"}
    assert reasons(third.rejected) == {"table.csv line 5": "missing report file"}
    for path in (tmp_path / "notes" / "1.txt", tmp_path / "2.txt"):
        path.unlink()
    with pytest.raises(ValueError, match=r"report_file: none of 3 studies .* notes/\{visit\}\.txt"):
        table.plan()


def test_words_of_boxes_are_renamed_and_their_images_may_be_patterns(tmp_path):
    box = {"id": "a", "label": "Infiltrate", "x": 1, "y": 2, "w": 3, "h": 4}
    write_csv(tmp_path / "boxes.csv", [box, box | {"label": "Mass"}])
    boxes = {"csv": "boxes.csv", "image": "{id}.png", "labels": {"Infiltrate": "Infiltration"}}
    ((study,), rejected) = source(tmp_path, [row("a.png")], boxes=boxes).plan()
    assert [b.label for b in study.images[0].boxes] == ["Infiltration", "Mass"]
    assert rejected == []
