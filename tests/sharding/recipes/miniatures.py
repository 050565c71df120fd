"""Public sets in miniature: their files, folders and column names, with invented pictures.

Each function writes a set into a folder, as a user has it unpacked, and says what its recipe must
make of it, counted by hand.
"""

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from tests.sharding.phantoms import phantom, write_images

CHEXPERT = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,"
    "Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,"
    "Support Devices"
)


@dataclass(frozen=True)
class Expected:
    """What the shards hold. patients: by official split, or in all under "hash". labels: finding ->
    images where it is present, absent, unknown. boxes: (finding, x, y, w, h), sorted."""

    patients: dict[str, int]
    studies: int
    labels: dict[str, tuple[int, int, int]]
    views: dict[str, int]
    reports: list[str] = field(default_factory=list)
    boxes: list[tuple] = field(default_factory=list)
    rejected: dict[str, int] = field(default_factory=dict)


def write(path: Path, lines, *, packed=False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if packed else data)


def nih_chestxray14(root: Path) -> Expected:
    """The layout of the copies that keep images_001/images; one image is in the other's place."""
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    )
    rows = [
        "00000001_000.png,Cardiomegaly|Effusion,0,1,058Y,M,PA,2682,2749,0.143,0.143,",
        "00000001_001.png,Pleural_Thickening,1,1,058Y,M,AP,2894,2729,0.143,0.143,",
        "00000002_000.png,No Finding,0,2,081Y,M,PA,2500,2048,0.171,0.171,",
        "00000003_000.png,Infiltration,0,3,081Y,F,PA,2582,2991,0.143,0.143,",
    ]
    write(root / "Data_Entry_2017.csv", [header, *rows])
    write(root / "test_list.txt", ["00000003_000.png"])
    boxes = ["00000003_000.png,Infiltrate,1.5,2.5,10.0,12.0", "00000001_000.png,Effusion,3,4,5,6"]
    write(root / "BBox_List_2017.csv", ["Image Index,Finding Label,Bbox [x,y,w,h],,,", *boxes])
    write_images(root / "images_001/images", ["00000001_000.png", "00000001_001.png"])
    write_images(root / "images_002/images", ["00000003_000.png"])
    alpha = np.dstack([phantom("rgba")] * 3 + [np.full((40, 48), 255, np.uint8)])
    (root / "images").mkdir()
    cv2.imwrite(str(root / "images/00000002_000.png"), alpha)  # some files of the set have four
    return Expected(
        patients={"hash": 2, "test": 1},
        studies=4,
        labels={
            "Pleural Effusion": (1, 3, 0),
            "Pleural Thickening": (1, 3, 0),
            "Infiltration": (1, 3, 0),
            "Hernia": (0, 4, 0),
        },
        views={"AP": 1, "PA": 3},
        boxes=[("Infiltration", 1.5, 2.5, 10.0, 12.0), ("Pleural Effusion", 3.0, 4.0, 5.0, 6.0)],
    )


def chexpert(root: Path, top="CheXpert-v1.0-small", train="train") -> Expected:
    """train: the folder of the training images, which the batches call otherwise."""
    header = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{CHEXPERT}"
    at = f"{top.split(' ')[0]}/train"
    rows = [
        f"{at}/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0",
        f"{at}/patient00002/study2/view1_frontal.jpg,Female,87,Frontal,PA,,,-1.0,1.0,,-1.0,-1.0,,"
        "-1.0,,-1.0,,1.0,",
        f"{at}/patient00002/study2/view2_lateral.jpg,Female,87,Lateral,,,,-1.0,1.0,,-1.0,-1.0,,"
        "-1.0,,-1.0,,1.0,",
        f"{at}/patient00002/study3/view1_frontal.jpg,Female,87,Frontal,LL,,,,,,,,,,,,,,",
    ]
    valid = (
        f"{at.replace('train', 'valid')}/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP"
    )
    batch = " batch 1 (validate & csv)" if " " in top else ""
    place = root / f"{top.split(' ')[0]}{batch}"
    write(place / "train.csv", [header, *rows])
    write(place / "valid.csv", [header, valid + ",0.0,1.0" + ",0.0" * 12])
    write_images(root / top / train, [row.split(",")[0].removeprefix(at + "/") for row in rows])
    write_images(place / "valid", ["patient64541/study1/view1_frontal.jpg"])
    return Expected(
        patients={"train": 2, "val": 1},
        studies=4,
        labels={
            "Atelectasis": (0, 2, 3),
            "Lung Opacity": (2, 2, 1),
            "Pneumothorax": (0, 2, 3),
            "Support Devices": (1, 1, 3),
            "Enlarged Cardiomediastinum": (1, 1, 3),
        },
        views={"AP": 2, "LATERAL": 1, "LL": 1, "PA": 1},
    )


def chexpert_batches(root: Path) -> Expected:
    return chexpert(root, "CheXpert-v1.0 batch 2 (train 1)", train=".")


def chexpert_plus(root: Path) -> Expected:
    header = (
        "path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,"
        "patient_report_date_order,report,section_findings,section_impression,age,split"
    )
    stems = [
        "train/patient42142/study5/view1_frontal",
        "train/patient42142/study5/view2_lateral",
        "valid/patient64545/study1/view1_frontal",
    ]
    report = '"NARRATIVE:\nChest.\n\nFINDINGS: Clear, ""as before"".\n"'
    rows = [
        f"{stems[0]}.jpg,{stems[0]}.dcm,Frontal,AP,patient42142,1,{report},Clear,,60.0,train",
        f"{stems[1]}.jpg,{stems[1]}.dcm,Lateral,,patient42142,1,{report},Clear,,60.0,train",
        f"{stems[2]}.jpg,{stems[2]}.dcm,Frontal,PA,patient64545,1,IMPRESSION: Edema.,,,7,valid",
    ]
    write(root / "df_chexpert_plus_240401.csv", [header, *rows])
    empty = dict.fromkeys(CHEXPERT.split(","))
    labels = [empty | {"No Finding": 1.0}, empty | {"No Finding": 1.0}]
    labels += [empty | {"Edema": 1.0, "Pneumonia": -1.0, "Fracture": 0.0}]
    lines = [
        json.dumps({"path_to_image": f"{stem}.jpg"} | words)
        for stem, words in zip(stems, labels, strict=True)
    ]
    write(root / "chexbert_labels/report_fixed.json", lines)
    write_images(root / "PNG", [f"{stem}.png" for stem in stems])
    return Expected(
        patients={"train": 1, "val": 1},
        studies=2,
        labels={
            "Edema": (1, 2, 0),
            "Pneumonia": (0, 2, 1),
            "Fracture": (0, 3, 0),
            "Support Devices": (0, 0, 3),
        },
        views={"AP": 1, "LATERAL": 1, "PA": 1},
        reports=["IMPRESSION: Edema.", 'NARRATIVE:\nChest.\n\nFINDINGS: Clear, "as before".'],
    )


def mimic_cxr_jpg(root: Path) -> Expected:
    """Tables packed and unpacked; a study without labels; reports as files."""
    images = [
        ("02aa804e-bde0afdd", "10000032", "50414267", "PA", "train"),
        ("174413ec-4ec4c1f7", "10000032", "50414267", "LATERAL", "train"),
        ("2a2277a9-b0ded155", "10000032", "53189527", "", "train"),
        ("e084de3b-be89b11e", "11000764", "57375967", "AP", "validate"),
        ("68b5c4b1-227d0485", "12000898", "50771383", "XTABLE LATERAL", "test"),
    ]
    header = (
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,"
        "StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,"
        "PatientOrientationCodeSequence_CodeMeaning"
    )
    rows = [
        f"{d},{p},{s},CHEST (PA AND LAT),{v},3056,2544,21800506,213014.531,,,Erect"
        for d, p, s, v, _ in images
    ]
    write(root / "mimic-cxr-2.0.0-metadata.csv.gz", [header, *rows], packed=True)
    rows = [f"{d},{s},{p},{split}" for d, p, s, _, split in images]
    write(root / "mimic-cxr-2.0.0-split.csv", ["dicom_id,study_id,subject_id,split", *rows])
    names = sorted(CHEXPERT.split(","))  # the order of that table
    said = {
        "10000032,50414267": {"No Finding": "1.0"},
        "10000032,53189527": {"Edema": "-1.0", "Pneumonia": "1.0"},
        "11000764,57375967": {"Atelectasis": "0.0", "Support Devices": "1.0"},
    }
    rows = [",".join([key, *(words.get(n, "") for n in names)]) for key, words in said.items()]
    table = ["subject_id,study_id," + ",".join(names), *rows]
    write(root / "mimic-cxr-2.0.0-chexpert.csv.gz", table, packed=True)
    for dicom, patient, study, _, _ in images:
        folder = f"files/p{patient[:2]}/p{patient}"
        write_images(root / folder / f"s{study}", [f"{dicom}.jpg"])
        text = [" " * 33 + "FINAL REPORT", f" FINDINGS: Of study {study}."]
        write(root / "mimic-cxr-reports" / folder / f"s{study}.txt", text)
    return Expected(
        patients={"train": 1, "val": 1, "test": 1},
        studies=4,
        labels={
            "Edema": (0, 2, 3),
            "Pneumonia": (1, 2, 2),
            "Atelectasis": (0, 3, 2),
            "Support Devices": (1, 0, 4),
        },
        views={"": 1, "AP": 1, "LATERAL": 1, "PA": 1, "XTABLE LATERAL": 1},
        reports=[
            f"FINAL REPORT\n FINDINGS: Of study {s}."
            for s in ("50414267", "50771383", "53189527", "57375967")
        ],
    )


def mura(root: Path) -> Expected:
    train = [
        "XR_SHOULDER/patient00001/study1_positive/image1.png",
        "XR_SHOULDER/patient00001/study1_positive/image2.png",
        "XR_WRIST/patient00001/study1_negative/image1.png",
        "XR_WRIST/patient00002/study1_negative/image1.png",
    ]
    valid = ["XR_HAND/patient11185/study2_positive/image1.png"]
    for split, names in (("train", train), ("valid", valid)):
        paths = [f"MURA-v1.1/{split}/{name}" for name in names]
        write(root / f"MURA-v1.1/{split}_image_paths.csv", paths)
        write_images(root, paths)
    return Expected(
        patients={"train": 2, "val": 1},
        studies=4,
        labels={"Abnormal": (3, 2, 0)},
        views={"HAND": 1, "SHOULDER": 2, "WRIST": 2},
    )


def shenzhen(root: Path, letters="CHNCXR") -> Expected:
    names = [f"{letters}_0001_0", f"{letters}_0002_1", f"{letters}_0003_1"]
    write_images(root / "CXR_png", [f"{name}.png" for name in names])
    (root / "CXR_png/Thumbs.db").write_bytes(b"made by a desktop")
    for name in names:
        write(root / f"ClinicalReadings/{name}.txt", ["male 45yrs", "normal"])
    return Expected(
        patients={"hash": 3}, studies=3, labels={"Tuberculosis": (2, 1, 0)}, views={"PA": 3}
    )


def montgomery(root: Path) -> Expected:
    return shenzhen(root, "MCUCXR")


def padchest(root: Path) -> Expected:
    header = (
        ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,"
        "ViewPosition_DICOM,Projection,MethodProjection,Pediatric,Modality_DICOM,"
        "PhotometricInterpretation_DICOM,BitsStored_DICOM,ReportID,Report,MethodLabel,Labels,"
        "Localizations"
    )
    images = [  # name, folder, study, patient, projection, photometric, labels
        ("2168_00-1.png", 0, "s1", "p1", "PA", "MONOCHROME2", "\"['normal']\""),
        ("2168_00-2.png", 0, "s1", "p1", "L", "MONOCHROME2", "\"['normal']\""),
        ("2169_03-1.png", 3, "s2", "p1", "AP_horizontal", "MONOCHROME1",
         "\"['pleural effusion', 'laminar atelectasis', 'NSG tube', 'goiter']\""),
        ("2170_54-1.png", 54, "s3", "p2", "PA", "MONOCHROME2", "\"['unchanged', 'pneumonia']\""),
        ("2171_54-1.png", 54, "s4", "p3", "EXCLUDE", "MONOCHROME2", "[]"),
    ]  # fmt: skip
    rows = [
        f"{i},{name},{place},20140915,{study},{patient},1930.0,F,,{view},Manual review of DICOM "
        f"fields,No,CR,{photometric},12,r{study},report {study} . sin hallazg,Physician,{labels},[]"
        for i, (name, place, study, patient, view, photometric, labels) in enumerate(images)
    ]
    write(root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", [header, *rows])
    for name, place, *_ in images:
        write_images(root / str(place), [name], dtype=np.uint16, top=4095)
    return Expected(
        patients={"hash": 3},
        studies=4,
        labels={
            "Atelectasis": (1, 2, 2),
            "Pleural Effusion": (1, 2, 2),
            "Pneumonia": (1, 3, 1),
            "Support Devices": (1, 2, 2),
        },
        views={"": 1, "AP": 1, "LATERAL": 1, "PA": 2},
        reports=[f"report {study} . sin hallazg" for study in ("s1", "s2", "s3", "s4")],
    )


MINIATURES = {
    "nih_chestxray14": nih_chestxray14,
    "chexpert": chexpert,
    "chexpert (batches)": chexpert_batches,
    "chexpert_plus": chexpert_plus,
    "mimic_cxr_jpg": mimic_cxr_jpg,
    "mura": mura,
    "shenzhen": shenzhen,
    "montgomery": montgomery,
    "padchest": padchest,
}
"""Recipe -> what writes its set; a word in brackets is another layout of the same."""
