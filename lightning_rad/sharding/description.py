"""What the JSON of a study says, and how it can be wrong: the format of shards/README.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
    "file": r"\d{2,}\.(jpg|png)",
    "pixels": "[0-9a-f]{32}",
    "fingerprint": "[0-9a-f]{64}",
}
"""How some of these are spelled."""


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


def _faults_of_entry(name: str, entry: dict[str, Any], findings: tuple[str, ...]) -> list[str]:
    faults = []
    for finding, value in entry["labels"].items():
        if finding not in findings or value not in (0, 1, None):
            faults.append(f"{name} has label {finding} = {value!r}")
    faults += [
        f"{name} has a box that is malformed or leaves it: {box}"
        for box in entry["boxes"]
        if not _lies_inside(box, entry["width"], entry["height"])
    ]
    for key, pattern in PATTERNS.items():
        if not re.fullmatch(pattern, entry[key]):
            faults.append(f"{name} has a malformed '{key}'")
    if "saliency" in entry:
        try:
            unpacked(entry["saliency"])
        except ValueError as error:
            faults.append(f"{name} has a malformed {error}")
    return faults


def _lies_inside(box: Any, width: int, height: int) -> bool:
    if not isinstance(box, dict) or set(box) != {"label", "x", "y", "w", "h"}:
        return False
    x, y, w, h = (box[key] for key in "xywh")
    if not all(isinstance(v, int | float) for v in (x, y, w, h)):
        return False
    rounding = 0.02
    fits = x + w <= width + rounding and y + h <= height + rounding
    return bool(x >= 0 and y >= 0 and w > 0 and h > 0 and fits)


def file_of(entry: Mapping[str, Any]) -> tuple[int, str]:
    """(ordinal, suffix) of the member that an entry describes."""
    ordinal, _, suffix = entry["file"].partition(".")
    return int(ordinal), suffix
