"""A report that is true of the body: every finding with its side, and the absence of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from lightning_rad.sharding.sources.synthetic.findings import LABELS, Finding
from lightning_rad.sharding.sources.synthetic.lesions import nodule_radius
from lightning_rad.sharding.sources.synthetic.solids import LEFT, RIGHT

SIDE: Final = {RIGHT: "right", LEFT: "left"}
ZONE: Final = {"upper": ("upper", "upper"), "mid": ("mid", "middle"), "lower": ("lower", "lower")}

PRESENT: Final = {
    "atelectasis": (
        "Plate-like atelectasis at the {side} lung base.",
        "Linear opacities at the {side} base, in keeping with {size} subsegmental atelectasis.",
        "There is {size} {side} basilar atelectasis.",
    ),
    "cardiomegaly": (
        "The heart is {heart} enlarged.",
        "There is {size} cardiomegaly.",
        "{size} enlargement of the cardiac silhouette.",
    ),
    "consolidation": (
        "There is {size} airspace consolidation in the {side} {zone} lung.",
        "Patchy consolidation is seen in the {zone} zone of the {side} lung.",
        "{size} focal consolidation projects over the {side} {zone} zone.",
    ),
    "effusion": (
        "{size} {side} pleural effusion.",
        "There is a {size} pleural effusion on the {side} with blunting of the costophrenic angle.",
        "A {size} amount of {side}-sided pleural fluid is present.",
    ),
    "nodule": (
        "There is a {cm} cm nodule in the {side} {zone} lung.",
        "A rounded nodule of about {cm} cm projects over the {side} {zone} zone.",
        "Solitary pulmonary nodule, {side} {zone} zone, measuring {cm} cm.",
    ),
    "pneumothorax": (
        "{size} {side} pneumothorax.",
        "There is a {size} pneumothorax on the {side} with a visible pleural line.",
        "A visceral pleural line is seen on the {side}, consistent with a {size} pneumothorax.",
    ),
}

BOTH: Final = {
    "edema": (
        "Bilateral perihilar haze, in keeping with {size} pulmonary edema.",
        "There is {size} pulmonary edema in both lungs.",
        "Central opacities on both sides from {size} pulmonary edema.",
    ),
    "effusion": (
        "Bilateral pleural effusions, {right} on the right and {left} on the left.",
        "There is pleural fluid on both sides: {right} on the right, {left} on the left.",
    ),
}

ABSENT: Final = {
    "atelectasis": ("No atelectasis.", "There is no evidence of atelectasis."),
    "cardiomegaly": (
        "Heart size is normal.",
        "The cardiac silhouette is not enlarged.",
        "No cardiomegaly.",
    ),
    "consolidation": (
        "No focal consolidation.",
        "The lungs are free of consolidation.",
        "There is no airspace consolidation.",
    ),
    "edema": ("No pulmonary edema.", "There is no evidence of edema."),
    "effusion": (
        "No pleural effusion.",
        "The costophrenic angles are sharp, without pleural effusion.",
        "There is no pleural fluid on either side.",
    ),
    "nodule": ("No pulmonary nodule is seen.", "No nodule."),
    "pneumothorax": ("No pneumothorax.", "There is no evidence of pneumothorax."),
}

GONE: Final = (
    "The {name} of the prior study has resolved.",
    "Previously seen {name} is no longer present.",
)

NORMAL: Final = (
    "No acute cardiopulmonary abnormality.",
    "Normal chest radiograph.",
    "No active disease.",
)

NAMES: Final = {"effusion": "pleural effusion", "edema": "pulmonary edema"}


def write_report(
    rng: np.random.Generator,
    findings: Sequence[Finding],
    before: Sequence[Finding] | None,
    views: Sequence[str],
    devices: Sequence[str],
) -> str:
    """The report of one study.

    before: the findings of the patient's study before this one, None at the first. devices: the
    names of what is in place.
    """
    positive = [_present(label, findings, rng) for label in LABELS if _has(label, findings)]
    lacking = [label for label in LABELS if not _has(label, findings)]
    negative = []
    for label in lacking:
        if before is not None and _has(label, before):
            name = NAMES.get(label, label)
            negative.append(_pick(GONE, rng).format(name=name))
        elif rng.random() < 0.8:
            negative.append(_pick(ABSENT[label], rng))
    body = [positive[i] for i in rng.permutation(len(positive))]
    body += [negative[i] for i in rng.permutation(len(negative))]
    if rng.random() < 0.3:
        body = [body[i] for i in rng.permutation(len(body))]
    body += [_device(name, rng) for name in devices]
    again = [_present(label, findings, rng) for label in LABELS if _has(label, findings)]
    impression = again or [_pick(NORMAL, rng)]
    technique = _technique(views, before is not None)
    return f"{technique}\nFINDINGS: {' '.join(body)}\nIMPRESSION: {' '.join(impression)}"


def _has(label: str, findings: Sequence[Finding]) -> bool:
    return any(f.label == label for f in findings)


def _present(label: str, findings: Sequence[Finding], rng: np.random.Generator) -> str:
    """One sentence that says all sides of one finding."""
    found = {f.side: f for f in findings if f.label == label}
    if len(found) > 1:
        words = {SIDE[side]: _size(f) for side, f in found.items()}
        worst = max(found.values(), key=lambda f: f.grade)
        text = _pick(BOTH[label], rng).format(size=_degree(worst), **words)
    else:
        ((side, f),) = found.items()
        zone = _pick(ZONE[f.zone], rng) if f.zone else ""
        graded = f.label in ("effusion", "pneumothorax")
        text = _pick(PRESENT[label], rng).format(
            side=SIDE.get(side, ""),
            zone=zone,
            size=_size(f) if graded else _degree(f),
            heart=_degree(f) + "ly" if label == "cardiomegaly" else "",
            cm=f"{2.0 * nodule_radius(f):.1f}",
        )
    return text[0].upper() + text[1:]


def _size(finding: Finding) -> str:
    return ("small", "moderate", "large")[min(int(finding.grade * 3), 2)]


def _degree(finding: Finding) -> str:
    return ("mild", "moderate", "severe")[min(int(finding.grade * 3), 2)]


def _device(name: str, rng: np.random.Generator) -> str:
    article = "An" if name[0] in "aeiou" else "A"
    return _pick((f"{article} {name} is in place.", f"{article} {name} is noted."), rng)


def _technique(views: Sequence[str], compared: bool) -> str:
    names = {"PA": "PA", "AP": "Portable AP", "LATERAL": "lateral"}
    listed = " and ".join(names[view] for view in views)
    noun = "view" if len(views) == 1 else "views"
    prior = "Comparison: prior radiograph." if compared else "Comparison: none."
    return f"TECHNIQUE: {listed[0].upper() + listed[1:]} {noun} of the chest. {prior}"


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
