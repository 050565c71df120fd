"""Which DICOM objects are radiographs, and what is said of those that are not.

Reasons never repeat a cell of the header: it may hold anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lightning_rad.modalities.dicom.settings import DicomSettings

SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
DOCUMENTS: Final = "1.2.840.10008.5.1.4.1.1.104"

OTHER_CLASSES: Final[Mapping[str, str]] = {
    "1.2.840.10008.5.1.4.1.1.1.2": "MG",
    "1.2.840.10008.5.1.4.1.1.1.2.1": "MG",
    "1.2.840.10008.5.1.4.1.1.1.3": "IO",
    "1.2.840.10008.5.1.4.1.1.1.3.1": "IO",
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.6.1": "US",
    "1.2.840.10008.5.1.4.1.1.12.1": "XA",
    "1.2.840.10008.5.1.4.1.1.12.2": "RF",
    "1.2.840.10008.5.1.4.1.1.13.1.3": "MG",
    "1.2.840.10008.5.1.4.1.1.20": "NM",
    "1.2.840.10008.5.1.4.1.1.128": "PT",
}
"""Storage classes (PS3.4, B.5) of other modalities: a header may say CR and be none."""

MODALITIES: Final = frozenset(
    {
        *("CR", "DX", "RG", "RF", "PX", "IO", "MG", "XA", "CT", "MR", "US", "NM", "PT", "BMD"),
        *("BI", "ES", "XC", "GM", "SM", "OP", "OT", "HC", "SR", "PR", "KO", "SEG", "REG", "DOC"),
        *("FID", "ECG", "HD", "AU", "RTDOSE", "RTIMAGE", "RTPLAN", "RTRECORD", "RTSTRUCT", "PLAN"),
    }
)
"""Words of Modality (PS3.3, C.7.3.1.1.1) that a reason may repeat."""


def refusal(tags: Mapping[str, Any], settings: DicomSettings) -> str | None:
    """Why an object is not read as a radiograph, "kind: detail", or None.

    tags: values of the header by keyword, those that are missing or empty left out.
    """
    storage = str(tags.get("SOPClassUID", ""))
    if storage.startswith(DOCUMENTS + "."):
        return "no pixel data: an encapsulated document"
    accepted = ", ".join(settings.modalities)
    modality = str(tags.get("Modality", ""))
    for word in (modality, OTHER_CLASSES.get(storage, modality)):
        if word not in settings.modalities:
            name = word if word in MODALITIES else "unknown" if word else "none"
            return f"wrong modality: {name}, accepted are {accepted}"
    captured = f"{storage}.".startswith(SECONDARY_CAPTURE + ".")
    if captured and not settings.secondary_capture:
        return "secondary capture: accepted where the recipe says secondary_capture"
    intent = str(tags.get("PresentationIntentType", "")).upper()
    if intent == "FOR PROCESSING" and not settings.for_processing:
        return "unprocessed image: accepted where the recipe says for_processing"
    return _shape(tags)


def _shape(tags: Mapping[str, Any]) -> str | None:
    """Why an image is not one frame of grey levels of at most 16 bits, or None."""
    if not {"Rows", "Columns"} <= tags.keys():
        return "no pixel data: a header without Rows and Columns"
    try:
        sizes = [int(tags[key]) for key in ("Rows", "Columns")]
        stored, container = (int(tags.get(key, 0)) for key in ("BitsStored", "BitsAllocated"))
        frames, channels = (int(tags.get(k, 1)) for k in ("NumberOfFrames", "SamplesPerPixel"))
        high = int(tags.get("HighBit", stored - 1))
    except (TypeError, ValueError):
        return "damaged header: a size or a number of bits that is no number"
    photometric = str(tags.get("PhotometricInterpretation", ""))
    faults = {
        f"multi-frame: {frames} frames, accepted is 1": frames > 1,
        "wrong channels: a colour picture, accepted are MONOCHROME1 and MONOCHROME2": (
            channels != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2")
        ),
        "no pixel data: a picture of no size": min(sizes) < 1,
        f"wrong depth: {stored} bits, up to bit {high}, of {container} allocated": (
            container not in (8, 16) or not 1 <= stored <= high + 1 <= container
        ),
    }
    return next((fault for fault, found in faults.items() if found), None)
