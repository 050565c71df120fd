"""A folder of DICOM files becomes patients, studies and views by its headers alone."""

import json
from pathlib import Path

import numpy as np
import pytest

from lightning_rad.manifest import load_manifest
from lightning_rad.sharding import verify
from lightning_rad.sharding.builder import build_recipe
from lightning_rad.sharding.recipe import load_recipe
from lightning_rad.sharding.sources import dicom_folder
from lightning_rad.sharding.sources.dicom_folder import DicomFolderSource
from tests.modalities.dicom.files import dicom, ramp

RECIPE = Path(__file__).parents[3] / "shards" / "dicom_folder.yaml"


def place(folder, name, seed, *, patient="P1", study="1.2.1", **tags):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    uids = {"PatientID": patient, "StudyInstanceUID": study, "SOPInstanceUID": f"1.2.9.{seed}"}
    make = {"WindowCenter": 2048, "WindowWidth": 4096} | uids | tags
    path.write_bytes(dicom(ramp(40, 60, seed=seed) + np.uint16(0), **make))


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "export"
    place(root, "doe_jane/b.dcm", 1, ViewPosition="PA", AccessionNumber="A1")
    place(root, "doe_jane/a", 2, ViewPosition="LL", AccessionNumber="A1")
    place(root, "doe_jane/later.dcm", 3, study="1.2.2", AccessionNumber="A2")
    place(root, "roe/x.dcm", 4, patient="P2", study="1.2.3", AccessionNumber="A3")
    place(root, "roe/ct.dcm", 5, patient="P2", study="1.2.3", Modality="CT")
    place(root, "zero/anonymous.dcm", 6, patient="")
    place(root, "zero/copy.dcm", 1)
    (root / "zero" / "notes.txt").write_text("Jane Doe")
    (root / "labels.csv").write_text("case,effusion,report\nA1,1,Effusion.\nA3,-1,\nA9,0,Clear.\n")
    return root


LABELS = {
    "csv": "labels.csv",
    "by": "AccessionNumber",
    "column": "case",
    "findings": {"columns": {"Effusion": "effusion"}},
    "report": "report",
}


def test_files_are_grouped_by_their_headers_and_refused_with_a_reason_and_no_name(folder):
    studies, rejected = DicomFolderSource(folder, labels=LABELS).plan()
    groups = {(s.patient, s.study): [i.file for i in s.images] for s in studies}
    assert groups == {
        ("P1", "1.2.1"): ["doe_jane/a", "doe_jane/b.dcm"],
        ("P1", "1.2.2"): ["doe_jane/later.dcm"],
        ("P2", "1.2.3"): ["roe/x.dcm"],
    }
    assert {(r.where, r.reason) for r in rejected} == {
        ("file 4 of 8, sorted", "wrong modality: CT, accepted are CR, DX"),
        ("file 6 of 8, sorted", "no patient: a header without PatientID"),
        ("file 7 of 8, sorted", "duplicate key: the same image as file 2 of 8, sorted"),
        ("file 8 of 8, sorted", "not an image: no DICOM file"),
    }


def test_views_labels_and_reports_come_with_the_pixels(folder):
    source = DicomFolderSource(folder, labels=LABELS)
    read = {s.study: source.read(s) for s in source.plan()[0]}
    assert [i.view for i in read["1.2.1"].images] == ["LATERAL", "PA"]
    assert [dict(i.labels) for i in read["1.2.1"].images] == [{"Effusion": 1}] * 2
    assert read["1.2.1"].report == "Effusion."
    assert dict(read["1.2.2"].images[0].labels) == {}
    assert dict(read["1.2.3"].images[0].labels) == {"Effusion": None}
    assert read["1.2.3"].report is None


def test_several_processes_plan_what_one_does(folder, monkeypatch):
    alone = DicomFolderSource(folder).plan()
    monkeypatch.setattr(dicom_folder, "ALONE", 2)
    monkeypatch.setattr(dicom_folder.os, "sched_getaffinity", lambda _: {0, 1})
    assert DicomFolderSource(folder).plan() == alone


def test_a_pattern_chooses_files_in_every_folder(folder):
    for pattern, count in (("**/*.dcm", 6), ("roe/*", 2), ("*", 9)):
        studies, rejected = DicomFolderSource(folder, pattern=pattern).plan()
        assert sum(len(s.images) for s in studies) + len(rejected) == count


def test_a_folder_that_is_none_empty_or_unreadable_is_named(folder, tmp_path, monkeypatch):
    (tmp_path / "set.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"set.zip is no folder; unpack an archive first"):
        DicomFolderSource(tmp_path / "set.zip").plan()
    with pytest.raises(ValueError, match=r"has no file that matches '\*.png'"):
        DicomFolderSource(folder, pattern="*.png").plan()
    walk = dicom_folder.os.scandir

    def refuse(path):
        if str(path).endswith("roe"):
            raise PermissionError(13, "Permission denied", str(path))
        return walk(path)

    monkeypatch.setattr(dicom_folder.os, "scandir", refuse)
    with pytest.raises(ValueError, match=r"roe: Permission denied"):
        DicomFolderSource(folder).plan()


def test_a_link_that_leads_back_is_followed_once(folder):
    (folder / "roe" / "up").symlink_to(folder)
    assert len(DicomFolderSource(folder)._files()) == 9


def test_settings_that_mean_nothing_are_refused_by_name(folder):
    with pytest.raises(ValueError, match=r"init_args.dicom: unknown key 'windows'"):
        DicomFolderSource(folder, dicom={"windows": 1})
    with pytest.raises(ValueError, match=r"'by' is 'Name'; accepted are PatientID"):
        DicomFolderSource(folder, labels=LABELS | {"by": "Name"})


def test_the_recipe_builds_shards_that_verify_and_hold_no_identifier(folder, tmp_path):
    recipe = load_recipe(RECIPE)
    object.__setattr__(recipe, "max_rejected_fraction", 0.6)
    build_recipe(recipe, tmp_path / "out", root=folder, workers=1, salt_file=tmp_path / "salt")
    manifest = load_manifest(tmp_path / "out")
    assert sum(s.images for s in manifest.shards) == 4
    assert verify([tmp_path / "out"], workers=1).problems == []
    everything = b"".join(p.read_bytes() for p in (tmp_path / "out").iterdir() if p.is_file())
    for secret in (b"doe", b"Doe", b'A1"', b"1.2.9.", b"anonymous", b"notes"):
        assert secret not in everything, secret
    rejected = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    assert len(rejected) == 5
    assert all(json.loads(line)["where"].startswith("file ") for line in rejected)
