"""What of a DICOM header is kept: an allow-list, each value checked for its form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lightning_rad.modalities.stored import Header


def header_from(values: Mapping[str, Any]) -> Header:
    """A header of values by keyword, those that are missing or empty left out."""
    sides = str(values.get("ImageLaterality", values.get("Laterality", "")))
    sex = str(values.get("PatientSex", ""))
    return Header(
        patient_id=str(values.get("PatientID", "")).strip(),
        study_uid=str(values.get("StudyInstanceUID", "")).strip(),
        series_uid=str(values.get("SeriesInstanceUID", "")).strip(),
        instance_uid=str(values.get("SOPInstanceUID", "")).strip(),
        accession=str(values.get("AccessionNumber", "")).strip(),
        modality=_word(values.get("Modality")),
        view_position=_word(values.get("ViewPosition")),
        laterality=sides if sides in ("R", "L", "U", "B") else "",
        body_part=_word(values.get("BodyPartExamined")),
        patient_sex=sex if sex in ("M", "F", "O") else "",
        patient_age=_years(str(values.get("PatientAge", ""))),
        bits_stored=int(values.get("BitsStored", 0)),
        pixel_spacing=_spacing(values),
        photometric=_word(values.get("PhotometricInterpretation")),
    )


def _word(value: object) -> str:
    """A code string (PS3.5, 6.2), "" where it is none."""
    text = str(value or "").strip()
    return text if re.fullmatch("[A-Z0-9 _]{1,16}", text) else ""


def _years(text: str) -> float | None:
    """An age string in years; ages above 89 are one, 90. A number alone is of years."""
    match = re.fullmatch(r"(\d{1,3})([YMWD]?)", text.strip())
    if match is None:
        return None
    per_year = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 52.1775, "D": 365.2425}[match[2]]
    years = int(match[1]) / per_year
    return 90.0 if years > 89 else round(years, 2)


def _spacing(values: Mapping[str, Any]) -> tuple[float, float] | None:
    for tag in ("PixelSpacing", "ImagerPixelSpacing"):
        try:
            row, column = map(float, values.get(tag, ()))
        except (TypeError, ValueError):
            continue
        if 0 < row < 100 and 0 < column < 100:
            return row, column
    return None
