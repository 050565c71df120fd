"""Further public sets in miniature: those of DICOM files, and that of reports as XML."""

from pathlib import Path

import numpy as np

from tests.modalities.dicom.files import BASELINE, EXPLICIT, J2K_LOSSLESS, dicom
from tests.sharding.phantoms import phantom, write_images
from tests.sharding.recipes.miniatures import Expected, write

CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def write_dicom(path: Path, values, *, bits=8, **tags) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dicom(values, bits=bits, **tags))


def write_capture(path: Path, view: str) -> None:
    """As the challenges made them from PNG: 1024 x 1024, 8 bits, JPEG inside."""
    values = phantom(path.name, height=1024, width=1024)
    made = {"SOPClassUID": CAPTURE, "ConversionType": "WSD", "ViewPosition": view}
    write_dicom(path, values, syntax=BASELINE, **made)


def rsna_pneumonia(root: Path) -> Expected:
    """Two images of one patient; one with two boxes."""
    names = [f"{i:08x}-870c-4b36-a041-de91049b9ab4" for i in range(4)]
    rows = [
        f"{names[0]},,,,,0",
        f"{names[1]},264.0,152.0,216.0,376.0,1",
        f"{names[1]},560.0,152.0,256.0,456.0,1",
        f"{names[2]},,,,,0",
        f"{names[3]},8.0,16.0,32.0,64.0,1",
    ]
    write(root / "stage_2_train_labels.csv", ["patientId,x,y,width,height,Target", *rows])
    said = ["Normal", "Lung Opacity", "No Lung Opacity / Not Normal", "Lung Opacity"]
    lines = [f"{name},{word}" for name, word in zip(names, said, strict=True)]
    write(root / "stage_2_detailed_class_info.csv", ["patientId,class", *lines, lines[1]])
    nih = ["00000001_000.png", "00000001_001.png", "00000002_000.png", "00000003_000.png"]
    pairs = ", ".join(
        f'{{"subset_img_id": "{n}", "img_id": "{i}"}}' for n, i in zip(names, nih, strict=True)
    )
    write(root / "pneumonia-challenge-dataset-mappings_2018.json", [f"[{pairs}]"])
    write(root / "test_list.txt", [nih[3]])
    for name in names:
        write_capture(root / f"stage_2_train_images/{name}.dcm", "AP" if name == names[1] else "PA")
    return Expected(
        patients={"hash": 2, "test": 1},
        studies=4,
        labels={"Lung Opacity": (2, 2, 0)},
        views={"AP": 1, "PA": 3},
        boxes=[
            ("Lung Opacity", 3.0, 6.0, 12.0, 24.0),  # 384 of 1024 pixels are stored
            ("Lung Opacity", 99.0, 57.0, 81.0, 141.0),
            ("Lung Opacity", 210.0, 57.0, 96.0, 171.0),
        ],
    )


def run_lengths(mask) -> str:
    """Of the challenge's kind: down the columns, gaps from the end of the run before."""
    flat = np.flatnonzero(mask.T.ravel())
    runs = np.split(flat, np.flatnonzero(np.diff(flat) > 1) + 1)
    ends = [0, *(run[-1] + 1 for run in runs)]
    return " ".join(f"{run[0] - end} {len(run)}" for run, end in zip(runs, ends, strict=False))


def siim_pneumothorax(root: Path) -> Expected:
    """The header of the table has a space; an image with two masks."""
    first, second, third = (np.zeros((1024, 1024), bool) for _ in range(3))
    first[128:256, 512:640] = first[256:264, 632:640] = True
    second[0:64, 0:8] = True
    third[800:1024, 960:1024] = True
    images = [f"1.2.276.0.7230010.3.1.4.8323329.{i}.1517875201.85081{i}" for i in (1, 2, 3)]
    rows = [
        f"{images[0]}, {run_lengths(first)}",
        f"{images[1]},-1",
        f"{images[2]},{run_lengths(second)}",
        f"{images[2]},{run_lengths(third)}",
    ]
    write(root / "train-rle.csv", ["ImageId, EncodedPixels", *rows])
    for image in images:
        folders = [image.replace(".4.8323329", f".{level}.8323329") for level in (2, 3)]
        write_capture(root / "dicom-images-train" / Path(*folders) / f"{image}.dcm", "PA")
    return Expected(
        patients={"hash": 3},
        studies=3,
        labels={"Pneumothorax": (2, 1, 0)},
        views={"PA": 3},
        boxes=[
            ("Pneumothorax", 0.0, 0.0, 3.0, 24.0),
            ("Pneumothorax", 192.0, 48.0, 48.0, 51.0),
            ("Pneumothorax", 360.0, 300.0, 24.0, 84.0),
        ],
    )


VINDR = (
    "Aortic enlargement,Atelectasis,Calcification,Cardiomegaly,Clavicle fracture,Consolidation,"
    "Edema,Emphysema,Enlarged PA,ILD,Infiltration,Lung Opacity,Lung cavity,Lung cyst,"
    "Mediastinal shift,Nodule/Mass,Pleural effusion,Pleural thickening,Pneumothorax,"
    "Pulmonary fibrosis,Rib fracture,Other lesion,COPD,Lung tumor,Pneumonia,Tuberculosis"
)


def vindr_cxr(root: Path) -> Expected:
    """Three readers an image in train, in the order of a shuffled table; a consensus in test."""
    ill, well, tested = "50a418190bc3fb1e", "21a10246a5ec7af1", "002a34c58c5b758217ed1f584ccbcfe9"

    def cells(*said):
        return ",".join("1" if name in said else "0" for name in VINDR.split(","))

    rows = [
        f"{ill},R9,{cells('Cardiomegaly', 'Pleural effusion', 'Nodule/Mass')},0,0",
        f"{well},R1,{cells()},0,1",
        f"{ill},R10,{cells('Cardiomegaly', 'Nodule/Mass')},1,0",
        f"{well},R2,{cells()},0,1",
        f"{ill},R8,{cells('Nodule/Mass')},0,0",
        f"{well},R3,{cells('Pulmonary fibrosis')},0,0",
    ]
    header = f"image_id,rad_id,{VINDR},Other diseases,No finding"
    write(root / "annotations/image_labels_train.csv", [header, *rows])
    header = f"image_id,{VINDR},Other disease,No finding"
    row = f"{tested},{cells('Pulmonary fibrosis', 'Rib fracture')},0,0"
    write(root / "annotations/image_labels_test.csv", [header, row])
    rows = [
        f"{ill},Cardiomegaly,R9,10.0,20.0,30.0,36.0",
        f"{ill},Pleural effusion,R9,2.0,2.0,8.0,10.0",
        f"{well},No finding,R1,,,,",
        f"{ill},Cardiomegaly,R10,12.0,20.0,32.0,36.0",
        f"{ill},Nodule/Mass,R9,0.0,0.0,4.0,4.0",
        f"{ill},Nodule/Mass,R8,40.0,30.0,44.0,34.0",
    ]
    header = "image_id,class_name,rad_id,x_min,y_min,x_max,y_max"
    write(root / "annotations/annotations_train.csv", [header, *rows])
    rows = [f"{tested},Rib fracture,1,1,5,7", f"{tested},Pulmonary fibrosis,1,1,5,7"]
    header = "image_id,class_name,x_min,y_min,x_max,y_max"
    write(root / "annotations/annotations_test.csv", [header, *rows])
    for name, tags in (
        (f"train/{ill}", {"PhotometricInterpretation": "MONOCHROME1", "syntax": J2K_LOSSLESS}),
        (f"train/{well}", {"syntax": EXPLICIT}),
        (f"test/{tested}", {"Modality": "DX", "ViewPosition": ""}),
    ):
        values = phantom(name, dtype=np.uint16, top=4095)
        window = {"WindowCenter": 2048, "WindowWidth": 4096}
        write_dicom(root / f"{name}.dicom", values, bits=12, **window | tags)
    return Expected(
        patients={"hash": 2, "test": 1},
        studies=3,
        labels={
            "Cardiomegaly": (1, 2, 0),
            "Pleural Effusion": (0, 2, 1),
            "Nodule/Mass": (1, 2, 0),
            "Fibrosis": (1, 1, 1),
            "Rib Fracture": (1, 2, 0),
            "Tuberculosis": (0, 3, 0),
        },
        views={"PA": 3},
        boxes=[
            ("Cardiomegaly", 11.0, 20.0, 20.0, 16.0),
            ("Fibrosis", 1.0, 1.0, 4.0, 6.0),
            ("Nodule/Mass", 0.0, 0.0, 4.0, 4.0),
            ("Nodule/Mass", 40.0, 30.0, 4.0, 4.0),
            ("Pleural Effusion", 2.0, 2.0, 6.0, 8.0),
            ("Rib Fracture", 1.0, 1.0, 4.0, 6.0),
        ],
    )


def oai_knee(root: Path) -> Expected:
    """Cells as programs show them: codes with words, missing ones with a reason; two projects."""
    rows = [
        "9000099|1: Right|15|0.9|016600300001|2",
        "9000099|2: Left|15|0.9|016600300001|0",
        "9000099|1: Right|37|0.9|016600300001|3",
        "9000296|1: Right|15|0.9|016600300009|4: Severe",
        "9000296|2: Left|15|0.9|016600300009|.: Missing Form/Incomplete Workbook",
    ]
    write(root / "KXR_SQ_BU00.txt", ["ID|SIDE|READPRJ|VERSION|V00BARCDBU|V00XRKL", *rows])
    places = {
        "0.C.2/9000099/20050101/00300001": "Bilateral PA Fixed Flexion Knee",
        "0.C.2/9000099/20050101/00300002": "AP Pelvis",
        "0.E.1/9000296/20060302/00300009": "Bilateral PA Fixed Flexion Knee",
    }
    lines = [
        f'"{place}","{place.split("/")[1]}","{place.split("/")[2]}","0166{place[-8:]}","OAI^XRAY^'
        f'KNEE","{what}"'
        for place, what in places.items()
    ]
    header = "Folder,ParticipantID,StudyDate,Barcode,StudyDescription,SeriesDescription"
    write(root / "00m/contents.csv", [header, *lines])
    for place in places:
        values = phantom(place, width=96, dtype=np.uint16, top=4095)
        write_dicom(root / "00m" / place / "001", values, bits=12, PatientID=place.split("/")[1])
    return Expected(
        patients={"hash": 2},
        studies=2,
        labels={
            "kl_0": (1, 2, 1),
            "kl_1": (0, 3, 1),
            "kl_2": (1, 2, 1),
            "kl_3": (0, 3, 1),
            "kl_4": (1, 2, 1),
        },
        views={"LEFT": 2, "RIGHT": 2},
    )


def report(number: int, images, terms, **sections) -> list[str]:
    """The XML of a report, with what a program reads of it."""
    names = ("COMPARISON", "INDICATION", "FINDINGS", "IMPRESSION")
    parts = [f'<AbstractText Label="{n}">{sections.get(n, "")}</AbstractText>' for n in names]
    return [
        '<?xml version="1.0" encoding="utf-8"?>',
        f'<eCitation><meta type="rr"/><uId id="CXR{number}"/>',
        "<MedlineCitation><Article><Abstract>",
        *parts,
        "</Abstract></Article></MedlineCitation><MeSH>",
        *(f"<major>{term}</major>" for term in terms),
        "<automatic>pneumonia</automatic></MeSH>",
        *(f'<parentImage id="{i}"><figureId>F1</figureId></parentImage>' for i in images),
        "</eCitation>",
    ]


def open_i(root: Path) -> Expected:
    """A report without images, one that was not indexed; images beside the reports."""
    reports = {
        1: report(1, ["CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"], ["normal"],
                  COMPARISON="None.", FINDINGS="Clear &amp; well.",
                  IMPRESSION="Normal chest XXXX."),
        10: report(10, ["CXR10_IM-0002-1001"], ["Opacity/lung/base/left", "Cardiac Shadow/enlarged",
                                                "Thickening/lung", "Fractures, Bone/ribs"],
                   IMPRESSION="Opacity."),
        11: report(11, ["CXR11_IM-0067-1001"], ["No Indexing"]),
        12: report(12, [], ["normal"], FINDINGS="None."),
    }  # fmt: skip
    for number, lines in reports.items():
        write(root / f"ecgen-radiology/{number}.xml", lines)
    write_images(root / "NLMCXR_png", ["CXR1_1_IM-0001-3001.png", "CXR1_1_IM-0001-4001.png"])
    write_images(root, ["CXR10_IM-0002-1001.png", "CXR11_IM-0067-1001.png"])
    return Expected(
        patients={"hash": 3},
        studies=3,
        labels={
            "Lung Opacity": (1, 2, 1),
            "Cardiomegaly": (1, 2, 1),
            "Fracture": (1, 2, 1),
            "Pleural Thickening": (0, 3, 1),
            "Pneumonia": (0, 3, 1),
        },
        views={"": 4},
        reports=[
            "COMPARISON: None.\nFINDINGS: Clear & well.\nIMPRESSION: Normal chest XXXX.",
            "IMPRESSION: Opacity.",
        ],
    )


MORE = {
    "rsna_pneumonia": rsna_pneumonia,
    "siim_pneumothorax": siim_pneumothorax,
    "vindr_cxr": vindr_cxr,
    "oai_knee": oai_knee,
    "open_i": open_i,
}
"""Recipe -> what writes its set."""
