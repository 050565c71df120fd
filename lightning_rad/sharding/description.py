"""What the JSON of a study and of its gaze say, and how they can be wrong: see shards/README.md."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from lightning_rad.modalities.gaze import unpacked

ENTRY: Final[Mapping[str, type | tuple[type, ...]]] = {
    "file": str,
    "view": str,
    "height": int,
    "width": int,
    "bits": int,
    "labels": dict,
    "boxes": list,
    "pixels": str,
    "fingerprint": str,
}
"""What the JSON of a study says of each image, and as which type."""

PATTERNS: Final = {
    "file": r"[0-9]{2,9}\.(jpg|png|pgm)",
    "pixels": "[0-9a-f]{32}",
    "fingerprint": "[0-9a-f]{64}",
}
"""How some of these are spelled."""

_MOST: Final = 1e12
_QUOTED: Final = 120


def faults_of(body: Any, split: str, findings: tuple[str, ...]) -> list[str]:
    """How a study's JSON departs from the format of shards/README.md."""
    if not isinstance(body, dict) or not isinstance(body.get("images"), list):
        return ["its JSON has no list 'images'"]
    faults = [
        f"its JSON says {key} {body.get(key)!r}, which is no hash"
        for key in ("patient", "study")
        if not re.fullmatch("[0-9a-f]{16}", str(body.get(key)))
    ]
    if body.get("split") != split:
        faults.append(f"its JSON says split {body.get('split')!r} in a shard of {split!r}")
    for number, entry in enumerate(body["images"]):
        if not isinstance(entry, dict):
            faults.append(f"its JSON's image {number} is no mapping")
            continue
        wrong = [k for k, kind in ENTRY.items() if not isinstance(entry.get(k), kind)]
        faults += [f"its JSON's image {number} has no valid '{key}'" for key in wrong]
        if not wrong:
            faults += _faults_of_entry(f"its JSON's image {number}", entry, findings)
    return faults


def identifies(body: Any) -> bool:
    """Whether the JSON says of every image which member it is and how its pixels are known again.

    Labels, boxes and maps may still be at fault.
    """
    images = body.get("images") if isinstance(body, dict) else None
    return isinstance(images, list) and all(
        isinstance(entry, dict)
        and all(isinstance(entry.get(key), kind) for key, kind in ENTRY.items())
        and all(re.fullmatch(pattern, entry[key]) for key, pattern in PATTERNS.items())
        for entry in images
    )


def faults_of_gaze(body: Any, ordinals: Collection[int]) -> tuple[list[str], int]:
    """How a study's gaze departs from the format, and how many fixations do not count.

    ordinals: of the images that the study has. A fixation outside its picture, or of no duration,
    is no fault: readers pass it over (see `modalities.gaze.heat_map`).
    """
    if not isinstance(body, dict):
        return ["its gaze is no mapping"], 0
    faults, idle = [], 0
    for key, rows in body.items():
        name = f"its gaze of image {_short(key)}"
        if not re.fullmatch("[0-9]{1,9}", key) or int(key) not in ordinals:
            faults.append(f"{name} is of no image")
        if not isinstance(rows, list):
            faults.append(f"{name} is no list")
            continue
        for number, row in enumerate(rows):
            if not (isinstance(row, list) and len(row) == 3 and all(map(_is_number, row))):
                faults.append(f"{name} has fixation {number} that is not [x, y, seconds]")
            elif row[2] < 0:
                faults.append(f"{name} has fixation {number} of negative duration")
            else:
                idle += not (0 <= row[0] < 1 and 0 <= row[1] < 1 and row[2] > 0)
    return faults, idle


def _faults_of_entry(name: str, entry: dict[str, Any], findings: tuple[str, ...]) -> list[str]:
    faults = []
    for finding, value in entry["labels"].items():
        if finding not in findings or value not in (0, 1, None):
            faults.append(f"{name} has label {_short(finding)} = {_short(value)}")
    faults += [
        f"{name} has a box that is malformed or leaves it: {_short(box)}"
        for box in entry["boxes"]
        if not _lies_inside(box, entry["width"], entry["height"])
    ]
    for key, pattern in PATTERNS.items():
        if not re.fullmatch(pattern, entry[key]):
            faults.append(f"{name} has a malformed '{key}'")
    if entry.get("saliency") is not None:
        try:
            unpacked(entry["saliency"])
        except ValueError as error:
            faults.append(f"{name} has a malformed {error}")
    return faults


def _lies_inside(box: Any, width: int, height: int) -> bool:
    if not isinstance(box, dict) or set(box) != {"label", "x", "y", "w", "h"}:
        return False
    x, y, w, h = (box[key] for key in "xywh")
    if not isinstance(box["label"], str) or not all(map(_is_number, (x, y, w, h))):
        return False
    rounding = 0.02
    fits = x + w <= width + rounding and y + h <= height + rounding
    return bool(x >= 0 and y >= 0 and w > 0 and h > 0 and fits)


def _is_number(value: Any) -> bool:
    """Whether it is one that is finite, and not beyond floats."""
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and -_MOST < value < _MOST


def _short(value: Any) -> str:
    """What a fault quotes: JSON may hold anything of any length."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _QUOTED else text[:_QUOTED] + "..."


def file_of(entry: Mapping[str, Any]) -> tuple[int, str]:
    """(ordinal, suffix) of the member that an entry describes."""
    ordinal, _, suffix = entry["file"].partition(".")
    return int(ordinal), suffix
