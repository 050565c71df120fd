"""What in a DICOM header says who somebody is: read only to look whether it has got out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Final

import pydicom
from pydicom.multival import MultiValue
from pydicom.tag import Tag

KEYWORDS: Final = (
    *("PatientID", "PatientName", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName"),
    *("PatientBirthDate", "PatientMotherBirthName", "PatientAddress", "PatientTelephoneNumbers"),
    *("IssuerOfPatientID", "MedicalRecordLocator", "MilitaryRank", "ResponsiblePerson"),
    *("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"),
    *(
        "AccessionNumber",
        "StudyID",
        "AdmissionID",
        "RequestedProcedureID",
        "FillerOrderNumberImagingServiceRequest",
    ),
    *(
        "ScheduledProcedureStepID",
        "PerformedProcedureStepID",
        "PlacerOrderNumberImagingServiceRequest",
    ),
    *("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "AdmittingDate"),
    *("ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName"),
    *("NameOfPhysiciansReadingStudy", "PhysiciansOfRecord", "RequestingPhysician"),
    *("InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName"),
    *("DeviceSerialNumber", "DetectorID", "PlateID", "CassetteID"),
)
"""Of those that the Basic Profile of PS3.15 (table E.1-1) takes out, the ones with short values."""

TAGS: Final = tuple(map(Tag, KEYWORDS))
"""Their numbers: a keyword that DICOM does not know would fail here, and not in silence below."""


def values_of(path: Path) -> dict[str, str]:
    """Keyword -> what the header says, where it says something; {} for what is no DICOM file.

    Several values of one element are apart by line ends.
    """
    found: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read: dict[str, Any] = {"stop_before_pixels": True, "specific_tags": [*TAGS]}
            dataset = pydicom.dcmread(path, force=True, **read)
            for keyword in KEYWORDS:
                if text := _text(dataset.get(keyword)):
                    found[keyword] = text
        except Exception:  # of a damaged file what was read so far, and its name, is looked for
            return found
    return found


def _text(value: object) -> str:
    several = value if isinstance(value, MultiValue) else [value]
    return "\n".join(str(one).strip() for one in several if one not in (None, ""))
